//! Numbered places for records, in pages, so that a large store grows without being moved.

use std::collections::BTreeSet;

use super::Record;

/// Records under their slots.
#[derive(Clone, Debug, Default)]
pub(super) struct Slots {
    pages: Vec<Page>,
    /// Pages with a free place.
    room: BTreeSet<u32>,
}

/// Some places in a row; no memory is kept for an empty page.
#[derive(Clone, Debug, Default)]
pub(super) struct Page {
    places: Vec<Option<Record>>,
    used: usize,
}

impl Slots {
    /// Puts a record into the lowest free slot.
    pub(super) fn insert(&mut self, record: Record) -> u32 {
        let page = self.room.first().copied().unwrap_or_else(|| number(self.pages.len()));
        let places = self.pages.get(page as usize).map_or(&[][..], |page| &page.places);
        let at = places.iter().position(Option::is_none).unwrap_or(0);
        let slot = page * PAGE_SLOTS + number(at);
        self.put(slot, record);
        slot
    }

    /// Puts a record into a slot; gives it back when that is used.
    pub(super) fn put(&mut self, slot: u32, record: Record) -> Option<Record> {
        let at = (slot / PAGE_SLOTS) as usize;
        while self.pages.len() <= at {
            self.room.insert(number(self.pages.len()));
            self.pages.push(Page::default());
        }
        let page = &mut self.pages[at];
        if page.used == 0 {
            page.places.resize_with(PAGE_SLOTS as usize, || None);
        }
        let place = &mut page.places[(slot % PAGE_SLOTS) as usize];
        if place.is_some() {
            return Some(record);
        }
        *place = Some(record);
        page.used += 1;
        if page.used == PAGE_SLOTS as usize {
            self.room.remove(&(slot / PAGE_SLOTS));
        }
        None
    }

    /// Takes the record out of a used slot.
    pub(super) fn remove(&mut self, slot: u32) -> Record {
        let page = &mut self.pages[(slot / PAGE_SLOTS) as usize];
        let record = page.places[(slot % PAGE_SLOTS) as usize].take().expect(USED);
        page.used -= 1;
        self.room.insert(slot / PAGE_SLOTS);
        if page.used == 0 {
            page.places = Vec::new();
        }
        while self.pages.pop_if(|last| last.used == 0).is_some() {
            self.room.remove(&number(self.pages.len()));
        }
        record
    }

    /// The record in a used slot.
    pub(super) fn get(&self, slot: u32) -> &Record {
        let page = &self.pages[(slot / PAGE_SLOTS) as usize];
        page.places[(slot % PAGE_SLOTS) as usize].as_ref().expect(USED)
    }

    /// The record in a used slot.
    pub(super) fn get_mut(&mut self, slot: u32) -> &mut Record {
        let page = &mut self.pages[(slot / PAGE_SLOTS) as usize];
        page.places[(slot % PAGE_SLOTS) as usize].as_mut().expect(USED)
    }

    /// The records below `slot`, the highest first.
    pub(super) fn below(&self, slot: u32) -> impl Iterator<Item = (u32, &Record)> {
        let slot = slot.min(self.end());
        let pages = self.pages[..slot.div_ceil(PAGE_SLOTS) as usize].iter().enumerate().rev();
        let all = pages.flat_map(|(page, Page { places, .. })| {
            let first = number(page) * PAGE_SLOTS;
            let places = places.iter().enumerate().rev();
            places.filter_map(move |(at, place)| Some((first + number(at), place.as_ref()?)))
        });
        all.skip_while(move |(at, _)| *at >= slot)
    }

    /// Above all used slots.
    pub(super) fn end(&self) -> u32 {
        number(self.pages.len()) * PAGE_SLOTS
    }

    /// All pages; none are left.
    pub(super) fn take_pages(&mut self) -> Vec<Page> {
        self.room.clear();
        std::mem::take(&mut self.pages)
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).expect("memory holds fewer than 2^32 keys")
}

/// Whoever asks has the slot from the index.
const USED: &str = "the slot is used";

/// A page of four KiB on the machines of today.
const PAGE_SLOTS: u32 = 256;
