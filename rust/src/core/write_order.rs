//! `ordered-pipelines yes`: a write waits for the client's earlier writes on other instances.
//!
//! On one instance a client's commands take effect in the order sent anyhow. Without this, commands
//! of a pipeline run concurrently on different instances, so others may see its later write first.

use crate::client::last_write::LastWrite;
use crate::core::worker::Worker;

impl Worker {
    /// True, and the gate is shut, while a write of this client to another instance is not
    /// answered; else its next command is noted as a write to this one (`None`: to several).
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
