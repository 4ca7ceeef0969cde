//! Clients whose replies are bulky are spread over several lanes to each instance.
//!
//! An instance may write about 200 KB per connection before this worker must read
//! (`net.core.wmem_default`). Replies of 1 KB fill that long before a deep batch of commands is
//! answered, and then instance and worker take turns. With eight lanes eight times as much fits.
//! Short replies stay on one lane, where batches are deepest. A client's commands to one instance
//! are always on one lane, so their order is kept: the lane changes only while the client is owed
//! nothing.

use crate::core::worker::Worker;

/// Lanes to each instance for bulky replies, in addition to the one for all others.
const STRIPES: u64 = 8;

/// The limit over all instances together.
const STRIPES_MOST: u64 = 128;

impl Worker {
    /// Moves a client to one of the lanes for bulky replies, or back.
    #[cold]
    pub(crate) fn spread(&mut self, place: usize) {
        let has_room = self.lanes.has_plenty();
        let client = &mut self.clients[place];
        client.is_striped = !client.is_striped;
        let stripes = (STRIPES_MOST / self.shared.instances as u64).min(STRIPES);
        let is_one = client.is_striped && has_room && stripes > 1;
        let stripe = if is_one { client.session.id % stripes + 1 } else { 0 };
        self.change_state(place, |state| state.stripe = u8::try_from(stripe).unwrap_or(0));
    }
}
