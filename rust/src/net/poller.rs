//! What the poller tells of a ready descriptor: a kind, and a place.

use rustix::event::epoll;

/// What an event is about; the rest of the 64 bits is a place.
pub(crate) const KIND_SHIFT: u32 = 62;

pub(crate) const KIND_CLIENT: u64 = 0;

pub(crate) const KIND_LANE: u64 = 1;

pub(crate) const KIND_LISTENER: u64 = 2;

pub(crate) const KIND_MAIL: u64 = 3;

/// What an event of this kind and place carries.
pub(crate) fn event_data(kind: u64, place: usize) -> epoll::EventData {
    epoll::EventData::new_u64(kind << KIND_SHIFT | place as u64)
}
