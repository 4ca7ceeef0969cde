//! Pushes to a client between its replies: messages and invalidations.
//!
//! A push never lands inside a reply whose beginning is already written (a large reply, or that of
//! EXEC), and never before the reply that it must follow.

use crate::catalog::channels::{Kind, Name};
use crate::client::client::Client;
use crate::client::owed::Owed;
use crate::client::push::Push;

impl Client {
    /// Pushes a message as soon as possible: its first byte, and the rest, which many clients
    /// share.
    pub fn push(&mut self, first: u8, rest: &[u8]) {
        let is_inside_a_reply = matches!(self.owed.front(), Some(Owed::Streaming));
        if self.pushes.is_empty() && !is_inside_a_reply && self.executing.is_none() {
            self.out.push(first);
            self.out.extend_from_slice(rest);
        } else {
            let after = self.front.wrapping_sub(u32::from(!is_inside_a_reply));
            self.wait_to_push(after, [&[first], rest].concat(), None);
        }
    }

    /// Pushes a whole message after everything that is owed. If it is for a subscription, it may
    /// still be dropped before.
    pub(crate) fn push_behind(&mut self, bytes: Vec<u8>, of: Option<(Kind, Name)>) {
        if self.owed.is_empty() && self.pushes.is_empty() && self.executing.is_none() {
            self.out.extend_from_slice(&bytes);
        } else {
            self.wait_to_push(self.next_sequence().wrapping_sub(1), bytes, of);
        }
    }

    fn wait_to_push(&mut self, after: u32, bytes: Vec<u8>, of: Option<(Kind, Name)>) {
        self.held += bytes.len();
        self.pushes.push_back(Push { after, bytes, of });
    }

    /// Drops messages for subscriptions that have failed.
    pub(crate) fn forget_pushes(&mut self, kind: Kind, names: &[Name]) {
        let is_for =
            |push: &Push| push.of.as_ref().is_some_and(|(k, n)| *k == kind && names.contains(n));
        let held = &mut self.held;
        self.pushes.retain(|push| {
            let is_kept = !is_for(push);
            *held -= if is_kept { 0 } else { push.bytes.len() };
            is_kept
        });
    }

    /// The oldest reply was just written: pushes that waited for it follow.
    pub(crate) fn release_pushes(&mut self) {
        if self.executing.is_some() {
            return; // the replies that come now are elements of EXEC's
        }
        while let Some(push) = self.pushes.front() {
            // The distance from that reply to the next one, modulo 2^32.
            if self.front.wrapping_sub(push.after).wrapping_sub(1) > u32::MAX / 2 {
                break;
            }
            self.held -= push.bytes.len();
            self.out.extend_from_slice(&push.bytes);
            self.pushes.pop_front();
        }
    }
}
