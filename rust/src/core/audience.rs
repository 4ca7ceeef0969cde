//! Delivers messages to the subscribed clients of this worker, and removes clients from its
//! audience.

use crate::catalog::channels::{Kind, Name};
use crate::client::closing::Closing;
use crate::core::coordinated::waits;
use crate::core::worker::Worker;
use crate::tables::message::Message;

impl Worker {
    /// Counts a client out. Messages that were posted before reach the clients that were subscribed
    /// then.
    pub(crate) fn count_out(&mut self, kind: Kind, names: &[Name]) {
        let shared = self.shared.clone();
        let registry = &shared.registry;
        let messages = registry.leave(kind, names, self.index, &shared.doors, &shared.coordinator);
        self.deliver_messages(messages);
    }

    /// Removes a client from the audience. The registry has already counted it out.
    pub(crate) fn leave(&mut self, place: usize, kind: Kind, name: &Name) {
        let known = self.clients[place].subscriptions.as_deref_mut();
        if known.is_some_and(|known| known.remove(kind, name)) {
            self.audience.remove(kind, name, place);
        }
    }

    pub(crate) fn forget_subscriber(&mut self, place: usize) {
        let client = &mut self.clients[place];
        if client.subscriptions.as_ref().is_some_and(|known| known.is_empty()) {
            client.subscriptions = None;
            client.is_resp2_subscriber = false;
            self.audience.clients -= 1;
        }
    }

    /// Delivers the messages that were posted to this worker.
    pub(crate) fn read_messages(&mut self) {
        let messages = self.shared.doors[self.index].messages.take();
        self.deliver_messages(messages);
    }

    pub(crate) fn deliver_messages(&mut self, messages: Vec<Message>) {
        for message in messages {
            let limit = self.shared.settings.output_limits.pubsub.hard();
            let mut over = Vec::new();
            for &place in self.audience.of(message.kind, &message.name) {
                let client = &mut self.clients[place];
                if client.closing == Closing::Now {
                    continue;
                }
                if client.out.capacity() == 0 {
                    client.out = self.pool.pop().unwrap_or_default();
                }
                let first = if self.lanes.state(client.lane_set).resp3 { b'>' } else { b'*' };
                // The message may be about the command that the client runs now.
                let is_told_first = !client.session.confirmations.is_empty()
                    || self.shared.pushes_follow_replies
                        && first == b'>'
                        && !client.owed.is_empty()
                        && !waits(client, &self.shared.table);
                if is_told_first {
                    let of = Some((message.kind, message.name.clone()));
                    client.push_behind([&[first], &*message.frame].concat(), of);
                } else {
                    client.push(first, &message.frame);
                }
                if client.pending() > limit {
                    over.push(place);
                }
                if !client.is_dirty {
                    client.is_dirty = true;
                    self.dirty.push(place);
                }
            }
            // The client may well be reading, and only this turn was long: try to write once more.
            for place in over {
                self.write_client(place);
            }
        }
    }

    /// The client's protocol.
    pub(crate) fn is_resp3(&self, place: usize) -> bool {
        self.lanes.state(self.clients[place].lane_set).resp3
    }
}
