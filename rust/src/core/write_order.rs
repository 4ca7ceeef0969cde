//! `ordered-pipelines yes`: a write waits for the client's earlier writes on other instances.
//!
//! On one instance a client's commands always take effect in the order sent. Without this setting,
//! commands of a pipeline run concurrently on different instances, so other clients may see a later
//! write first.

use crate::client::last_write::LastWrite;
use crate::core::worker::Worker;

impl Worker {
    /// True, and the gate is shut, while a write of this client on another instance is not
    /// answered. Otherwise its next command is noted as a write on this one (`None`: on several).
    pub(crate) fn must_wait_for_writes(&mut self, place: usize, instance: Option<usize>) -> bool {
        if !self.shared.ordered_pipelines {
            return false;
        }
        let client = &mut self.clients[place];
        let sequence = client.next_sequence();
        let is_elsewhere = client.last_write.is_some_and(|last| {
            let is_answered = last.sequence.wrapping_sub(client.front) >= u32::MAX / 2;
            !is_answered && (instance.is_none() || last.instance != instance)
        });
        if is_elsewhere && self.must_drain(place) {
            return true;
        }
        self.clients[place].last_write = Some(LastWrite { instance, sequence });
        false
    }
}
