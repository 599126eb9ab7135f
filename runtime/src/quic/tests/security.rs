//! Certificates that change while the node runs, and newcomers that are not known yet.

use rustls_pki_types::pem::PemObject as _;

use super::*;
use crate::sim::fuzz;

/// What it takes to be told apart from the first authority.
fn files_of(ca: &Authority, node: &str, trusted: &[&Authority]) -> TlsFiles {
    let roots: String = trusted.iter().map(|ca| ca.ca_pem()).collect();
    TlsFiles { ca: roots.into(), ..issue(ca, node) }
}

#[tokio::test]
async fn renewed_certificates_serve_new_links_and_live_ones_survive() {
    let (old, new) = (authority("bank"), authority("bank"));
    let ((a, mut at_a), (b, mut at_b)) = (node(&old, "a", 1), node(&old, "b", 2));
    a.connect(&name("b"), &b.local_addr().to_string());
    let _ = (at_a.up().await, at_b.up().await);

    // From now on only the new authority counts at a, and a is known by it.
    a.renew(&files_of(&new, "a", &[&new])).unwrap();
    a.send(&name("b"), Lane::User, &TELL, b"still here").unwrap();
    assert_eq!(at_b.frame().await.body, b"still here"[..]);

    let (c, mut at_c) = node(&new, "c", 3);
    c.connect(&name("a"), &a.local_addr().to_string());
    let _ = (at_c.up().await, at_a.up().await);
    let (d, mut at_d) = node(&new, "d", 4);
    a.connect(&name("d"), &d.local_addr().to_string());
    let _ = (at_d.up().await, at_a.up().await);
    let (e, mut at_e) = raw("bank", "e", issue(&old, "e"));
    let reason = refusal(&e, &mut at_e, "a", a.local_addr()).await;
    assert!(reason.contains("certificate"), "{reason}");
    assert!(a.is_up(&name("b")).is_some());
}

#[tokio::test]
async fn files_that_cannot_be_used_change_nothing() {
    let ca = authority("bank");
    let (a, mut at_a) = node(&ca, "a", 1);
    let good = issue(&ca, "a");
    for (bad, why) in [
        (TlsFiles { key: issue(&ca, "a").key, ..good.clone() }, "certificate"),
        (TlsFiles { cert: b"junk".to_vec(), ..good.clone() }, "the node's certificate"),
        (TlsFiles { ca: b"junk".to_vec(), ..good.clone() }, "authority"),
        (issue(&ca, "b"), "it is for b.bank.synod, not for a.bank.synod"),
    ] {
        let error = a.renew(&bad).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    let (b, mut at_b) = node(&ca, "b", 2);
    b.connect(&name("a"), &a.local_addr().to_string());
    let _ = (at_a.up().await, at_b.up().await);
}

#[test]
fn newcomers_have_bounded_places_each_address_a_part_of_them() {
    let mut handshakes = Handshakes::default();
    let address = |last| IpAddr::from([10, 0, 0, last]);
    for _ in 0..HANDSHAKES_UNPROVEN_MAX {
        assert_eq!(handshakes.take(address(1), false), Newcomer::Admit);
    }
    assert_eq!(handshakes.take(address(1), false), Newcomer::Prove);
    for _ in HANDSHAKES_UNPROVEN_MAX..HANDSHAKES_PER_ADDRESS_MAX {
        assert_eq!(handshakes.take(address(1), true), Newcomer::Admit);
    }
    assert_eq!(handshakes.take(address(1), true), Newcomer::Refuse, "its part is used up");
    for other in HANDSHAKES_PER_ADDRESS_MAX..HANDSHAKES_MAX {
        let other = u8::try_from(other).unwrap();
        assert_eq!(handshakes.take(address(other), true), Newcomer::Admit);
    }
    assert_eq!(handshakes.take(address(200), true), Newcomer::Refuse);
    handshakes.end(address(1));
    assert_eq!(handshakes.take(address(200), true), Newcomer::Admit);
    handshakes.end(address(200));
    for _ in 1..HANDSHAKES_PER_ADDRESS_MAX {
        handshakes.end(address(1));
    }
    assert_eq!(handshakes.by_address.len(), HANDSHAKES_MAX - HANDSHAKES_PER_ADDRESS_MAX);
}

#[test]
fn damaged_certificates_name_nobody_or_a_node_of_the_cluster() {
    let whole = CertificateDer::from_pem_slice(include_bytes!("certificate.pem")).unwrap();
    assert_eq!(tls::node_of(&whole, &name("bank")), Ok(name("a")));
    fuzz(5, 40_000, &[&whole, b""], |data| {
        let certificate = CertificateDer::from(data);
        if let Ok(node) = tls::node_of(&certificate, &name("bank")) {
            let named = format!("{node}.bank.synod");
            assert!(tls::names_of(&certificate).unwrap().contains(&named));
        }
    });
}
