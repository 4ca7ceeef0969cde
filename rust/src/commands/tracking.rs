//! Client-side caching: which clients get an invalidation when a key changes.
//!
//! ```text
//! take ─► Tracking::remember (before the read is sent)                  (threads/tracking_table.rs)
//! instance ─► coordinator ─► Tracking::invalidate ─► Mail::Invalidate ─► client.out
//! ```
//! Invariant: a key is remembered before the instance gets the read, and its invalidation is
//! written after everything that the client is owed by then. So a client that reads an old value
//! gets the invalidation later than that value.

use crate::base::client_key::ClientKey;
use crate::base::number::push_u64;
use crate::catalog::key_specs;
use crate::catalog::table::{Route, Row, Table};
use crate::client::closing::Closing;
use crate::client::tracking_mode::Mode;
use crate::core::coordinated::waits;
use crate::core::worker::Worker;
use crate::resp::request::{Args, Cut, Limits, Request};
use crate::threads::letters::{Mail, ToCoordinator};
use crate::threads::tracking_table::null;

impl Worker {
    /// Runs CLIENT TRACKING ON with its options, or OFF.
    pub(crate) fn track(&mut self, key: ClientKey, mut mode: Option<Box<Mode>>) {
        if !self.is_here(key) {
            return;
        }
        let id = self.clients[key.place].session.id;
        match &mode {
            Some(mode) => self.shared.tracking.set(id, key, mode, self.is_resp3(key.place)),
            None => self.shared.tracking.end(id),
        }
        let client = &mut self.clients[key.place];
        if let (Some(mode), Some(before)) = (&mut mode, &client.session.tracking) {
            mode.is_broken = mode.caching && before.is_broken; // CLIENT CACHING changes no more
        }
        client.is_tracking = mode.is_some();
        client.session.tracking = mode;
    }

    /// Ends the tracking of a client that resets or leaves; the coordinator is notified.
    pub(crate) fn end_tracking(&mut self, place: usize) {
        let client = &mut self.clients[place];
        if std::mem::take(&mut client.is_tracking) {
            client.session.tracking = None;
            self.shared.tracking.end(client.session.id);
            self.shared.coordinator.post(ToCoordinator::Gone(self.key(place)));
        }
    }

    fn is_here(&self, key: ClientKey) -> bool {
        self.clients.get(key.place).is_some_and(|client| {
            client.generation == key.generation && client.closing != Closing::Now
        })
    }

    /// True if an invalidation for a client is about to arrive: its command waits for the next
    /// turn, when the invalidation is here.
    pub(crate) fn must_hear(&mut self, place: usize) -> bool {
        let client = &mut self.clients[place];
        let has_waited = std::mem::take(&mut client.feed_drained);
        if has_waited || client.executing.is_some() {
            return false;
        }
        // Another thread may have read it, and just have posted it to this worker.
        if !self.shared.hear() && self.shared.doors[self.index].mailbox.is_empty() {
            return false;
        }
        self.clients[place].feed_drained = true;
        self.mark_ready(place);
        true
    }

    /// Remembers what a command of a client that tracks reads.
    pub(crate) fn remember(&mut self, place: usize, row: &Row, args: Args) {
        if self.is_remembered(place, row) {
            let keys = key_specs::all(&row.keys, args).map(|at| args.get(at));
            let id = self.clients[place].session.id;
            let _ = self.shared.tracking.remember(id, keys, &self.shared.doors);
        }
    }

    /// Whether the reads of this command are remembered for its client. EXEC has remembered
    /// already, unless some of it may not be read any more; the coordinator finds out what a script
    /// reads.
    pub(crate) fn is_remembered(&self, place: usize, row: &Row) -> bool {
        let client = &self.clients[place];
        client.is_tracking
            && (client.executing.is_none() || client.is_restricted)
            && !row.writes
            && row.touches_keys
            && !row.traits.is_script
            && client.session.tracking.as_ref().is_some_and(|mode| mode.remembers())
    }

    /// A command that writes several keys: their invalidations are sent in its order.
    #[cold]
    pub(crate) fn note_order(&self, row: &Row, args: Args) {
        self.shared.tracking.note_order(key_specs::all(&row.keys, args).map(|at| args.get(at)));
    }

    /// True for a command that may change keys, of a client that does not want invalidations of its
    /// own changes: the coordinator runs it under a lock on its keys.
    pub(crate) fn changes_unheard(&self, place: usize, row: &Row) -> bool {
        let client = &self.clients[place];
        client.executing.is_none()
            && row.writes
            && matches!(row.route, Route::Keys | Route::Split(_))
            && client.session.tracking.as_ref().is_some_and(|mode| mode.no_loop)
    }

    /// The same for all commands of a transaction.
    pub(crate) fn remember_queued(&mut self, place: usize, mut commands: &[u8], table: &Table) {
        let mut request = Request::default();
        while !commands.is_empty()
            && let Ok(Cut::Complete(length)) = request.cut(commands, Limits::NONE)
        {
            let args = request.args(&commands[..length]);
            if let Some(row) = table.row_of(args) {
                self.remember(place, row, args);
            }
            request.reset();
            commands = &commands[length..];
        }
    }

    /// Ends CLIENT CACHING, which holds for one command or one transaction.
    pub(crate) fn end_caching(&mut self, place: usize, row: &Row) {
        let client = &mut self.clients[place];
        if client.multi.is_none() && client.executing.is_none() && !row.traits.keeps_caching {
            client.set_caching(false);
        }
    }

    /// Sends an invalidation of keys to a client, or to its redirection target; `None`: of all
    /// keys.
    pub(crate) fn tell_invalid(
        &mut self,
        origin: ClientKey,
        target: Option<ClientKey>,
        body: Option<&[u8]>,
    ) {
        let key = target.unwrap_or(origin);
        if !self.is_here(key) {
            if target.is_some() {
                self.shared.doors[origin.worker].mailbox.post(Mail::BrokenRedirect(origin));
            }
            return;
        }
        let resp3 = self.is_resp3(key.place);
        let mut frame = Vec::new();
        if resp3 {
            frame.extend_from_slice(b">2\r\n$10\r\ninvalidate\r\n");
        } else if target.is_some() && self.clients[key.place].subscriptions.is_some() {
            frame.extend_from_slice(b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n");
        } else {
            return;
        }
        frame.extend_from_slice(body.unwrap_or(null(resp3)));
        self.push_invalidation(key.place, frame);
    }

    /// The target of the redirection is gone.
    pub(crate) fn redirect_is_broken(&mut self, key: ClientKey) {
        if !self.is_here(key) {
            return;
        }
        let resp3 = self.is_resp3(key.place);
        let Some(mode) = &mut self.clients[key.place].session.tracking else { return };
        let Some((id, _)) = mode.redirect else { return };
        mode.is_broken = true;
        if resp3 {
            let mut frame = b">2\r\n$21\r\ntracking-redir-broken\r\n:".to_vec();
            push_u64(&mut frame, id);
            frame.extend_from_slice(b"\r\n");
            self.push_invalidation(key.place, frame);
        }
    }

    fn push_invalidation(&mut self, place: usize, frame: Vec<u8>) {
        let client = &mut self.clients[place];
        if waits(client, &self.shared.table) {
            client.push(frame[0], &frame[1..]);
        } else {
            client.push_behind(frame, None);
        }
        self.mark_dirty(place);
    }
}
