//! Confirmations of subscriptions: they are sent once the instances are subscribed.
//!
//! ```text
//! SUBSCRIBE a ─► counts at once; the coordinator subscribes the instances ─► confirmed in its turn
//! SUBSCRIBE b ─► the same, while the confirmation of a waits
//! ```
//! A message published on a name reaches every client that sent its SUBSCRIBE before. Therefore
//! subscriptions do not wait for each other. A client may subscribe to one channel after another,
//! each for the answer to a request that it sends next; if it had to wait, it would lose answers
//! while an instance is slow. All other commands wait, because they may change which messages a client gets.

use crate::base::client_key::ClientKey;
use crate::catalog::channels::{Kind, Name, Refused};
use crate::client::closing::Closing;
use crate::client::confirmation::Confirmation;
use crate::client::gate::Gate;
use crate::client::owed::Owed;
use crate::core::worker::Worker;
use crate::resp::reply::push_error;

impl Worker {
    /// Sends a client the confirmation of its subscriptions, after those that are due before it. A
    /// client that has switched replies off gets it, too.
    pub(crate) fn confirm(&mut self, place: usize, confirmation: Vec<u8>) {
        let client = &mut self.clients[place];
        if client.session.confirmations.is_empty() {
            client.out.extend_from_slice(&confirmation);
            client.skip_nothing();
        } else {
            self.owe_confirmation(place, confirmation, true);
        }
        self.mark_dirty(place);
    }

    /// Sends it once `confirm_late` is called with this number.
    pub(crate) fn confirm_later(&mut self, place: usize, confirmation: Vec<u8>) -> u32 {
        let client = &mut self.clients[place];
        // The rest of a transaction waits for the coordinator, as always.
        client.gate =
            if client.executing.is_some() { Gate::Coordinator } else { Gate::Subscribing };
        self.owe_confirmation(place, confirmation, false)
    }

    fn owe_confirmation(&mut self, place: usize, bytes: Vec<u8>, is_due: bool) -> u32 {
        let client = &mut self.clients[place];
        client.held += bytes.len();
        let sequence = client.owe(Owed::Waiting(client.last_row()));
        client.session.confirmations.push_back(Confirmation { sequence, bytes, is_due });
        sequence
    }

    /// The instances are subscribed, and the client gets its confirmation. If a script runs too
    /// long on one of them, the client gets that error instead, and is subscribed to none of the
    /// names it asked for.
    pub(crate) fn confirm_late(&mut self, key: ClientKey, sequence: u32, refused: Option<Refused>) {
        let place = key.place;
        let Some(client) = self.clients.get_mut(place) else { return };
        if client.generation != key.generation || client.closing == Closing::Now {
            return;
        }
        let is_counted = client.executing.is_none();
        let busy = self.shared.settings.busy_words();
        let mut all = client.session.confirmations.iter_mut();
        let Some(confirmation) = all.find(|one| one.sequence == sequence) else { return };
        confirmation.is_due = true;
        if refused.is_some() {
            client.held -= confirmation.bytes.len();
            confirmation.bytes.clear();
            push_error(&mut confirmation.bytes, busy.as_bytes());
            client.held += confirmation.bytes.len();
        }
        let reply = confirmation.bytes.clone();
        if !is_counted {
            self.count_answered(place, &reply);
        } else if let (Some(owed), true) = (client.owed_at(sequence), refused.is_some()) {
            self.tally.failed(owed.row() as usize, &reply);
        }
        if let Some((kind, names)) = refused {
            self.take_back(place, kind, &names);
        }
        self.tell_what_is_due(place);
    }

    fn tell_what_is_due(&mut self, place: usize) {
        let client = &mut self.clients[place];
        while let Some(first) = client.session.confirmations.front()
            && first.is_due
            && client.is_front(first.sequence)
            && let Some(first) = client.session.confirmations.pop_front()
        {
            client.held -= first.bytes.len();
            client.out.extend_from_slice(&first.bytes);
            client.pop_front();
            client.settle(&self.lanes.received); // a PONG between two confirmations
        }
        let may_go_on = match client.gate {
            Gate::Subscribing => client.session.confirmations.is_empty(),
            Gate::Drain => client.owed.is_empty(),
            Gate::Coordinator => client.executing.is_some(), // else rights are checked
            _ => false,
        };
        if may_go_on {
            self.open_gate(place);
        }
        self.mark_dirty(place);
    }

    /// Ends subscriptions that were never confirmed, unless the client has ended them itself by
    /// now.
    fn take_back(&mut self, place: usize, kind: Kind, names: &[Vec<u8>]) {
        let known = self.clients[place].subscriptions.as_deref();
        let is_known = |name: &&Vec<u8>| known.is_some_and(|known| known.has(kind, name));
        let names: Vec<Name> =
            names.iter().filter(is_known).map(|name| Name::from(&name[..])).collect();
        self.count_out(kind, &names);
        for name in &names {
            self.leave(place, kind, name);
        }
        self.clients[place].forget_pushes(kind, &names);
        self.forget_subscriber(place);
    }
}
