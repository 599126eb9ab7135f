//! Derives for Synod.
