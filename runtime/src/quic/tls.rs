//! Who may talk to whom: mutual TLS 1.3 with names.
//!
//! A node's certificate carries the DNS name `NODE.CLUSTER.synod`. The side that dials checks
//! that it reached the node it meant, the side that accepts learns from it who came. Both demand
//! the cluster's own authority, so a stranger is refused before its first frame.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::{
    RootCertStore,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    sign::CertifiedKey,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::listener::CLIENT;
use crate::{
    identity::{ClusterName, NodeName},
    world::{
        Clock, RealClock,
        network::{BindError, TlsFiles},
    },
};

/// What the nodes speak, so that no other QUIC service is taken for one.
const ALPN: &[u8] = b"synod/1";
/// Last label of the names in certificates; no real domain ends in it.
pub(super) const SUFFIX: &str = "synod";
/// How long certificates last: a cluster should not die of a date nobody watches.
const VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Certificates are valid from this long ago, since clocks of new machines are often late.
const BACKDATE: Duration = Duration::from_secs(24 * 3600);

/// The DNS name of a node in its certificate.
pub(super) fn dns_name(node: &NodeName, cluster: &ClusterName) -> String {
    format!("{node}.{cluster}.{SUFFIX}")
}

/// What a connection was made with, for both directions.
pub(super) struct Tls {
    pub(super) client: Arc<QuicClientConfig>,
    pub(super) server: Arc<QuicServerConfig>,
    /// Known to this node only and the same after a restart.
    pub(super) secret: Vec<u8>,
}

/// Makes both TLS configurations of a node.
pub(super) fn configure(files: &TlsFiles) -> Result<Tls, BindError> {
    let bad = |what: &str, why: &dyn std::fmt::Display| BindError::Tls(format!("{what}: {why}"));
    let roots = Arc::new(roots_of(&files.ca)?);
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&files.cert)
        .collect::<Result<_, _>>()
        .map_err(|e| bad("the node's certificate", &e))?;
    let key = PrivateKeyDer::from_pem_slice(&files.key).map_err(|e| bad("the node's key", &e))?;
    let secret = key.secret_der().to_vec();
    let provider = Arc::new(provider());

    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(|e| bad("the authority's certificate", &e))?;
    let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| bad("TLS 1.3", &e))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key.clone_key())
        .map_err(|e| bad("the node's certificate", &e))?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    // Links live long: every one shows its certificate, no ticket stands in for it.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;

    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| bad("TLS 1.3", &e))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|e| bad("the node's certificate", &e))?;
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.resumption = Resumption::disabled();

    let server = QuicServerConfig::try_from(server).map_err(|e| bad("QUIC", &e))?;
    let client = QuicClientConfig::try_from(client).map_err(|e| bad("QUIC", &e))?;
    Ok(Tls { client: Arc::new(client), server: Arc::new(server), secret })
}

/// The authorities in a PEM text: one, or two while one takes over from the other.
pub(super) fn roots_of(ca: &[u8]) -> Result<RootCertStore, BindError> {
    let bad =
        |e: &dyn std::fmt::Display| BindError::Tls(format!("the authority's certificate: {e}"));
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(ca) {
        roots.add(cert.map_err(|e| bad(&e))?).map_err(|e| bad(&e))?;
    }
    if roots.is_empty() { Err(bad(&"there is none")) } else { Ok(roots) }
}

/// A node's certificate with its key, which must belong together.
pub(super) fn key_of(files: &TlsFiles) -> Result<CertifiedKey, BindError> {
    let bad = |what: &str, why: &dyn std::fmt::Display| BindError::Tls(format!("{what}: {why}"));
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&files.cert)
        .collect::<Result<_, _>>()
        .map_err(|e| bad("the node's certificate", &e))?;
    let key = PrivateKeyDer::from_pem_slice(&files.key).map_err(|e| bad("the node's key", &e))?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|e| bad("the node's certificate", &e))
}

/// Which node of `cluster` this certificate names.
///
/// # Errors
/// A text that says whom it names instead.
pub(super) fn node_of(
    certificate: &CertificateDer<'_>,
    cluster: &ClusterName,
) -> Result<NodeName, String> {
    let names = names_of(certificate)?;
    let end = format!(".{cluster}.{SUFFIX}");
    let node = names.iter().find_map(|name| name.strip_suffix(&end)?.parse().ok());
    node.ok_or_else(|| {
        format!("the certificate is for {}, not for a node of cluster {cluster}", names.join(", "))
    })
}

/// Whether a node could start with these files: an authority, and a certificate of this node with its
/// key.
///
/// # Errors
/// What of it cannot be used.
pub fn check_files(
    files: &TlsFiles,
    node: &NodeName,
    cluster: &ClusterName,
) -> Result<(), BindError> {
    roots_of(&files.ca)?;
    key_of(files)?;
    check_own(files, node, cluster)
}

/// Refuses to start with a certificate that every peer would refuse.
pub(super) fn check_own(
    files: &TlsFiles,
    node: &NodeName,
    cluster: &ClusterName,
) -> Result<(), BindError> {
    let bad = |why: String| BindError::Tls(format!("the node's certificate: {why}"));
    let first = CertificateDer::from_pem_slice(&files.cert).map_err(|e| bad(e.to_string()))?;
    let names = names_of(&first).map_err(bad)?;
    let wanted = dns_name(node, cluster);
    if names.contains(&wanted) {
        return Ok(());
    }
    Err(bad(format!("it is for {}, not for {wanted}", names.join(", "))))
}

pub(super) fn names_of(certificate: &CertificateDer<'_>) -> Result<Vec<String>, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|e| e.to_string())?;
    let names = parsed.subject_alternative_name().map_err(|e| e.to_string())?;
    let names = names.map_or(&[][..], |extension| &extension.value.general_names);
    let dns = names.iter().filter_map(|name| {
        // A foreign enum with many kinds of names; only this one matters here.
        if let GeneralName::DNSName(name) = name { Some((*name).to_owned()) } else { None }
    });
    Ok(dns.collect())
}

/// aws-lc with AES-128 first: half the rounds of AES-256, and links are bound by CPU.
pub(super) fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![
        aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
        aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    provider
}

/// The authority of one cluster: makes the certificates of its nodes.
pub struct Authority {
    cluster: ClusterName,
    ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// Why a certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct AuthorityError {
    what: &'static str,
    source: rcgen::Error,
}

impl Authority {
    /// A new authority with a new key (P-256).
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn new(cluster: &ClusterName) -> Result<Self, AuthorityError> {
        let made = |source| AuthorityError { what: "making an authority", source };
        let key = new_key().map_err(made)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("{cluster}.{SUFFIX} authority"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let now = wall();
        params.not_before = (UNIX_EPOCH + now.saturating_sub(BACKDATE)).into();
        params.not_after = (UNIX_EPOCH + now + VALIDITY).into();
        let ca_pem = params.self_signed(&key).map_err(made)?.pem();
        Ok(Self { cluster: cluster.clone(), ca_pem, issuer: Issuer::new(params, key) })
    }

    /// The authority that was stored as these texts.
    ///
    /// # Errors
    /// Texts that are no certificate or no key.
    pub fn from_pem(
        cluster: &ClusterName,
        ca_pem: &str,
        key_pem: &str,
    ) -> Result<Self, AuthorityError> {
        let key = KeyPair::from_pem(key_pem)
            .map_err(|source| AuthorityError { what: "the authority's key", source })?;
        let issuer = Issuer::from_ca_cert_pem(ca_pem, key)
            .map_err(|source| AuthorityError { what: "the authority's certificate", source })?;
        Ok(Self { cluster: cluster.clone(), ca_pem: ca_pem.to_owned(), issuer })
    }

    /// The certificate and key of one node, under its own name, further names and addresses (for
    /// its HTTP listener, say).
    ///
    /// # Errors
    /// When a name cannot stand in a certificate, or the system gives no randomness.
    pub fn issue(
        &self,
        name: &NodeName,
        extra_dns: &[String],
        extra_ips: &[IpAddr],
    ) -> Result<TlsFiles, AuthorityError> {
        self.issue_until(name, extra_dns, extra_ips, wall() + VALIDITY)
    }

    /// The certificate and key of a client (`ca` is the authority's): good for a node's HTTP and
    /// RESP listeners, and never taken for a node's.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn issue_client(&self, name: &NodeName) -> Result<TlsFiles, AuthorityError> {
        let names = vec![format!("{name}{CLIENT}.{}.{SUFFIX}", self.cluster)];
        self.sign(names, &[], vec![ExtendedKeyUsagePurpose::ClientAuth], wall() + VALIDITY)
    }

    /// The authority's certificate as PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The authority's private key as PEM: whoever has it can join the cluster.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// As [`Authority::issue`], valid until `end` after 1970.
    pub(super) fn issue_until(
        &self,
        name: &NodeName,
        extra_dns: &[String],
        extra_ips: &[IpAddr],
        end: Duration,
    ) -> Result<TlsFiles, AuthorityError> {
        let mut names = vec![dns_name(name, &self.cluster)];
        names.extend_from_slice(extra_dns);
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(names, extra_ips, usages, end)
    }

    /// A certificate for `names`, of which the first is the one it goes by.
    fn sign(
        &self,
        names: Vec<String>,
        extra_ips: &[IpAddr],
        usages: Vec<ExtendedKeyUsagePurpose>,
        end: Duration,
    ) -> Result<TlsFiles, AuthorityError> {
        let made = |source| AuthorityError { what: "making a certificate", source };
        let key = new_key().map_err(made)?;
        let common = names.first().cloned().unwrap_or_default();
        let mut params = CertificateParams::new(names).map_err(made)?;
        params.subject_alt_names.extend(extra_ips.iter().map(|ip| SanType::IpAddress(*ip)));
        params.distinguished_name.push(DnType::CommonName, common);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        params.use_authority_key_identifier_extension = true;
        params.not_before = (UNIX_EPOCH + wall().min(end).saturating_sub(BACKDATE)).into();
        params.not_after = (UNIX_EPOCH + end).into();
        let cert: Certificate = params.signed_by(&key, &self.issuer).map_err(made)?;
        Ok(TlsFiles {
            ca: self.ca_pem.clone().into_bytes(),
            cert: cert.pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
        })
    }
}

fn new_key() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
}

/// Since 1970.
fn wall() -> Duration {
    Duration::from_millis(RealClock.wall_ms())
}
