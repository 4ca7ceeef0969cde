//! Entries for SLOWLOG and COMMANDLOG: commands that no instance got in the form the client sent.
//!
//! ```text
//! answered here                      ─► log         takes no time
//! over several instances             ─► log_whole   with its parts, which the instances may have
//! writes over several, transactions  ─► log_write   logged: the coordinator combines them
//! ```
//! Only an instance knows how long its part took. A worker knows how long the whole command took,
//! including waits. It reports the commands that took long enough, and the coordinator asks the
//! instances.

use crate::base::begun::Begun;
use crate::base::clock::monotonic;
use crate::catalog::table::{Route, Row};
use crate::client::gate::Gate;
use crate::core::monitor::{REDACTED, secrets};
use crate::core::worker::Worker;
use crate::lane::lane::Expect;
use crate::resp::encode::EXEC;
use crate::resp::request::{Args, Cut, Limits, Request, with_args};
use crate::routing::parts::SplitCommand;
use crate::tables::slow_log::{Entry, Seen, shortened};
use crate::threads::letters::ToCoordinator;
use crate::work::commit::Write;
use rustix::time::{ClockId, clock_gettime};

const NANOSECONDS: u64 = 1000; // nanoseconds of a microsecond

impl Worker {
    /// Bytes of replies for a client that are held here.
    pub(crate) fn answered_bytes(&self, place: usize) -> usize {
        let client = &self.clients[place];
        client.out.len() + client.held
    }

    /// Logs a command that was answered here; `before` is what `answered_bytes` was before it.
    pub(crate) fn log(&mut self, place: usize, args: Args, before: usize) {
        let mut reply = self.answered_bytes(place).saturating_sub(before);
        let mut request = args.raw.len();
        if let Some(executing) = &mut self.clients[place].executing {
            executing.replied += reply;
            (request, reply) = (EXEC.len(), executing.replied);
        }
        if self.shared.settings.logs(0, request, reply) {
            self.log_answered(place, args, (request, reply));
        }
    }

    #[cold]
    fn log_answered(&self, place: usize, args: Args, (request, reply): (usize, usize)) {
        let row = self.shared.table.row(self.clients[place].last_command);
        let is_left = self.clients[place].gate == Gate::Coordinator;
        if !is_left || matches!(row.route, Route::Pubsub(_)) {
            self.tell(place, (row, args), (0, request, reply), Vec::new());
        }
    }

    /// Logs a command of a transaction that the coordinator has run.
    pub(crate) fn log_run(&mut self, place: usize, (row, args): (&Row, Args), reply: usize) {
        let Some(executing) = &mut self.clients[place].executing else { return };
        executing.replied += reply;
        let (took, reply) = (executing.took, executing.replied);
        if self.shared.settings.logs(took, EXEC.len(), reply) {
            self.tell(place, (row, args), (took, EXEC.len(), reply), Vec::new());
        }
    }

    /// Logs a command over several instances whose reply has `reply` bytes.
    pub(crate) fn log_whole(&self, place: usize, begun: &Begun, reply: usize) {
        self.log_seen(place, begun, reply, |worker, row, args| worker.parts(place, row, args));
    }

    /// The same for a command whose parts are known.
    pub(crate) fn log_seen(
        &self,
        place: usize,
        begun: &Begun,
        reply: usize,
        parts: impl FnOnce(&Self, &Row, Args) -> Vec<Seen>,
    ) {
        let took = monotonic().saturating_sub(begun.at) / NANOSECONDS;
        if !self.shared.settings.logs(took, begun.raw.len(), reply) {
            return;
        }
        with_args(&begun.raw, |args| {
            if let Some(row) = self.shared.table.row_of(args) {
                let parts = parts(self, row, args);
                self.tell(place, (row, args), (took, args.raw.len(), reply), parts);
            }
        });
    }

    /// Logs a write over several instances; `ends` are the ends of its commands' replies.
    pub(crate) fn log_write(&self, write: &Write, ends: &[usize]) {
        let Some(place) = self.place_of(write.expect) else { return };
        let reply = ends.last().copied().unwrap_or(0);
        if write.rows.is_none() {
            return self.log_whole(place, &write.begun, reply);
        }
        let took = monotonic().saturating_sub(write.begun.at) / NANOSECONDS;
        if !self.shared.settings.logs(took, EXEC.len(), reply) {
            return;
        }
        let (mut commands, mut request) = (&write.begun.raw[..], Request::default());
        for &end in ends {
            let Ok(Cut::Complete(length)) = request.cut(commands, Limits::NONE) else { return };
            let args = request.args(&commands[..length]);
            if let Some(row) = self.shared.table.row_of(args)
                && self.shared.settings.logs(took, EXEC.len(), end)
            {
                let parts = self.parts(place, row, args);
                self.tell(place, (row, args), (took, EXEC.len(), end), parts);
            }
            request.reset();
            commands = &commands[length..];
        }
    }

    /// The index of a client, if it has not left.
    pub(crate) fn place_of(&self, expect: Expect) -> Option<usize> {
        let place = expect.client as usize;
        let client = self.clients.get(place)?;
        (client.generation == expect.generation).then_some(place)
    }

    fn tell(
        &self,
        place: usize,
        (row, args): (&Row, Args),
        (took, request, reply): (u64, usize, usize),
        parts: Vec<Seen>,
    ) {
        if !row.is_logged {
            return;
        }
        let secret = secrets(row, args);
        let session = &self.clients[place].session;
        let is_first = self.shared.slow_log.add(Entry {
            address: session.peer.address.clone(),
            name: session.name.clone(),
            args: shortened(args, REDACTED, |at| secret.contains(&at)),
            at: u64::try_from(clock_gettime(ClockId::RealtimeCoarse).tv_sec).unwrap_or(0),
            took,
            request,
            reply,
            parts,
        });
        if is_first {
            self.shared.coordinator.post(ToCoordinator::Logged);
        }
    }

    /// The part of a command that each instance got.
    fn parts(&self, place: usize, row: &Row, args: Args) -> Vec<Seen> {
        let seen = |args: Args| shortened(args, REDACTED, |_| false);
        if matches!(row.route, Route::All(_)) {
            return (0..self.shared.instances).map(|instance| (instance, seen(args))).collect();
        }
        let mut owners = Vec::new();
        let Some(whole) =
            SplitCommand::new(row, args, self.db(place), &self.shared.placement, &mut owners)
        else {
            return Vec::new();
        };
        let counts = (0..self.shared.instances).map(|instance| (instance, whole.count(instance)));
        let part = |(instance, keys)| {
            let mut part = Vec::new();
            whole.push_part(instance, keys, &mut part);
            Some((instance, with_args(&part, seen)?))
        };
        counts.filter(|&(_, keys)| keys > 0).filter_map(part).collect()
    }

    /// The words of a command that one instance got unchanged.
    pub(crate) fn seen(instance: usize, command: &[u8]) -> Vec<Seen> {
        let words = with_args(command, |args| shortened(args, REDACTED, |_| false));
        words.map(|words| (instance, words)).into_iter().collect()
    }
}
