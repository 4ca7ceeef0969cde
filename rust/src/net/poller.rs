//! The data of a poller's event: a kind, and a place.

use rustix::event::epoll;

/// The kind is in the bits from here on; the rest of the 64 bits is a place.
pub(crate) const KIND_SHIFT: u32 = 62;

pub(crate) const KIND_CLIENT: u64 = 0;

pub(crate) const KIND_LANE: u64 = 1;

pub(crate) const KIND_LISTENER: u64 = 2;

pub(crate) const KIND_MAIL: u64 = 3;

/// The data of an event of this kind and place.
pub(crate) fn event_data(kind: u64, place: usize) -> epoll::EventData {
    epoll::EventData::new_u64(kind << KIND_SHIFT | place as u64)
}
