//! What the poller reports about a client or a lane.

use crate::core::worker::Worker;
use crate::net::poller::{KIND_CLIENT, KIND_LANE, event_data};
use crate::net::socket;
use rustix::event::epoll;
use rustix::io::Errno;

impl Worker {
    /// Asks the kernel to report the events that this client needs now.
    pub(crate) fn watch_client(&self, place: usize) -> Result<(), Errno> {
        let client = &self.clients[place];
        let flags = if client.wants_write { socket::READ_WRITE } else { socket::READ };
        epoll::modify(&self.epoll, &client.fd, event_data(KIND_CLIENT, place), flags)
    }

    /// Asks the kernel to report the events that this lane needs now.
    pub(crate) fn watch_lane(&self, place: usize) -> Result<(), Errno> {
        let Some(lane) = self.lanes.get(place) else {
            return Ok(());
        };
        let flags = if lane.wants_write { socket::READ_WRITE } else { socket::READ };
        epoll::modify(&self.epoll, &lane.fd, event_data(KIND_LANE, place), flags)
    }
}
