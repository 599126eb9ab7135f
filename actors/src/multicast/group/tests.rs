use synod_runtime::identity::Incarnation;

use super::*;

fn group(servers: u64) -> Group {
    let names = (0..servers).map(|n| NodeId::new(format!("s{n}").parse().unwrap(), Incarnation(n)));
    Group::new("news", names.collect())
}

#[test]
fn three_servers_go_on_without_one_and_two_only_keep_what_they_have() {
    let survives = |data, service, replaced| Survives { data, service, replaced };
    assert_eq!(group(3).survives(), survives(1, 1, true));
    assert_eq!(group(2).survives(), survives(1, 0, false));
    assert_eq!(group(1).survives(), survives(0, 0, false));
    assert!(group(2).survives().to_string().ends_with("; a lost one is not replaced"));
    assert!(group(3).survives().to_string().ends_with("goes on with 1 lost"));
    let one_copy = Group { k_data: 1, ..group(3) };
    assert!(!one_copy.survives().replaced);
    assert_eq!(group(3).seals(), 2);
}

#[test]
fn a_group_of_too_few_nodes_has_as_many_copies_as_there_are_servers() {
    let measures = Measures { servers: 5, k_data: 3, k_commit: 3, ..Measures::default() };
    let five = Group::with("news", group(5).servers, &measures);
    assert_eq!((five.k_data, five.k_commit, five.k_checkpoint), (3, 3, 2));
    let one = Group::with("news", group(1).servers, &measures);
    assert_eq!((one.k_data, one.k_commit, one.check()), (1, 1, Ok(())));
}

#[test]
fn a_server_is_replaced_by_one_that_counts_only_when_it_is_in() {
    let four = group(4).servers;
    let three = group(3);
    let coming = three.replacing(&four[1], four[3].clone()).unwrap();
    assert_eq!((coming.version, coming.servers.len(), coming.seals()), (1, 3, 2));
    assert_eq!((coming.index(&four[1]), coming.index(&four[3])), (None, None));
    assert_eq!(coming.index(&four[2]), Some(2));
    assert_eq!(coming.survives(), Survives { data: 0, service: 0, replaced: true });
    assert_eq!(coming.hosts().collect::<Vec<_>>(), [&four[0], &four[2], &four[3]]);
    let busy = coming.replacing(&four[0], four[1].clone());
    assert_eq!(busy, Err(BadChange::Busy(four[3].clone())));
    let there = coming.replacing(&four[1], four[2].clone());
    assert_eq!(there, Err(BadChange::Place(four[2].clone())));
    assert_eq!(coming.joined(&four[0]), Err(BadChange::Place(four[0].clone())));
    let done = coming.joined(&four[3]).unwrap();
    assert_eq!(done.survives(), three.survives());
    assert_eq!((done.version, done.index(&four[3]), done.joining), (2, Some(1), None));
    let one = Group { k_commit: 1, ..three };
    let lost = one.replacing(&four[1], four[3].clone());
    assert_eq!(lost, Err(BadChange::Copies { k_data: 2, k_commit: 1 }));
}

#[test]
fn a_group_of_an_older_log_has_its_first_servers() {
    #[derive(Serialize)]
    struct Older(String, Vec<NodeId>, usize, usize, usize, u64, u64, u64);
    let group = group(3);
    let Group { name, servers, lifetime, every, keep, .. } = group.clone();
    let older = rmp_serde::to_vec(&Older(name, servers, 2, 2, 2, lifetime, every, keep));
    let read: Group = rmp_serde::from_slice(&older.unwrap()).unwrap();
    assert_eq!(read, Group { replace_after_ms: 0, ..group });
}

#[test]
fn a_group_that_cannot_be_is_refused_by_what_is_wrong_with_it() {
    assert_eq!(group(3).check(), Ok(()));
    assert_eq!(group(0).check(), Err(BadGroup::Servers(0)));
    let more = Group { k_data: 4, ..group(3) };
    assert_eq!(more.check(), Err(BadGroup::Copies { what: "k_data", k: 4, servers: 3 }));
    let named = Group { name: "a/b".into(), ..group(3) };
    assert_eq!(named.check(), Err(BadGroup::Name("a/b".into())));
    let short = Group { lifetime: 0, ..group(3) };
    assert_eq!(short.check(), Err(BadGroup::Measure("lifetime")));
}
