//! A site's disk, with what it does to bodies.

use bytes::Bytes;
use synod::runtime::{
    digest::sha256,
    journal::Durability,
    sim::{DiskConditions, Simulation},
    world::World,
};

use super::{Apart, PIECE_BYTES, Store};

const DIR: &str = "bodies";

fn open(world: &World) -> Store {
    Store::open(&world.disk, DIR.into(), Durability::Fsync).unwrap()
}

fn names(world: &World) -> Vec<String> {
    world.disk.list(DIR.as_ref()).unwrap()
}

/// It, without holding on to it.
fn named(body: &Apart) -> Apart {
    Apart { held: None, ..body.clone() }
}

#[test]
fn a_body_is_there_after_a_crash_and_until_it_is_swept() {
    Simulation::new(1).run(|sim| async move {
        let node = "a".parse().unwrap();
        let store = open(&sim.world(&node));
        let kept = store.keep(Bytes::from_static(b"a large body")).await.unwrap();
        assert_eq!((kept.bytes, &kept.digest), (12, &sha256(b"a large body")));
        let mut unfinished = store.draft();
        unfinished.put(Bytes::from_static(b"what never")).await.unwrap();
        let world = sim.restart(&node);
        drop((store, unfinished));
        let (store, kept) = (open(&world), named(&kept));
        assert_eq!(names(&world), [format!("body-{}", kept.digest)], "nothing that is not whole");
        let held = store.held(&kept).await.unwrap().expect("it was durable").held.unwrap();
        assert_eq!(held.up_to(0, usize::MAX).await.unwrap(), "a large body");
        let second = store.piece(&kept, PIECE_BYTES as u64).await.unwrap().unwrap();
        assert_eq!(second, &b"a large body"[PIECE_BYTES..2 * PIECE_BYTES]);
        // Somebody uses it; then somebody wants it; then nobody does.
        store.sweep(|_| false);
        assert!(store.held(&kept).await.unwrap().is_some());
        drop(held);
        store.sweep(|digest| digest == kept.digest);
        assert!(store.held(&kept).await.unwrap().is_some());
        store.sweep(|_| false);
        assert_eq!(store.piece(&kept, 0).await.unwrap(), None);
        let again = store.keep(Bytes::from_static(b"a large body")).await.unwrap();
        assert_eq!((&again, names(&world).len()), (&kept, 1), "removed before it came again");
    });
}

#[test]
fn a_body_that_rotted_is_not_there_and_one_is_kept_once_however_often_it_comes() {
    Simulation::new(2).run(|sim| async move {
        let node = "a".parse().unwrap();
        let world = sim.world(&node);
        let store = open(&world);
        let kept = store.keep(Bytes::from_static(b"good")).await.unwrap();
        let twice = store.keep(Bytes::from_static(b"good")).await.unwrap();
        assert_eq!((&kept, names(&world).len()), (&twice, 1));
        drop(twice);
        store.sweep(|_| false);
        assert!(store.held(&kept).await.unwrap().is_some(), "the first still uses it");
        let world = sim.restart(&node);
        let path = format!("{DIR}/body-{}", kept.digest);
        let mut file = world.disk.open(path.as_ref(), false).unwrap();
        file.write_at(0, b"G").unwrap();
        file.sync_data().unwrap();
        drop((store, file));
        let store = open(&world);
        assert_eq!(store.held(&named(&kept)).await.unwrap(), None);
        let anew = store.keep(Bytes::from_static(b"good")).await.unwrap();
        assert_eq!(anew.held.unwrap().up_to(0, usize::MAX).await.unwrap(), "good");
    });
}

#[test]
fn a_body_for_which_there_is_no_room_leaves_nothing() {
    Simulation::new(3).run(|sim| async move {
        let node = "a".parse().unwrap();
        let world = sim.world(&node);
        let store = open(&world);
        let mut draft = store.draft();
        draft.put(Bytes::from_static(b"some")).await.unwrap();
        let conditions = sim.disk_conditions(&node);
        let capacity = Some(sim.disk_used(&node));
        sim.set_disk_conditions(&node, DiskConditions { capacity, ..conditions });
        let full = draft.put(Bytes::from_static(b" more")).await.unwrap_err();
        assert!(matches!(full, super::Unkept::Full(_)), "{full}");
        assert!(draft.finish().await.is_err(), "what came of it is not whole");
        sim.set_disk_conditions(&node, conditions);
        let kept = store.keep(Bytes::from_static(b"other")).await.unwrap();
        assert_eq!(names(&world), [format!("body-{}", kept.digest)]);
    });
}
