//! The next command of a transaction that a worker runs command by command.

use crate::base::step::Step;
use crate::catalog::table::Found;
use crate::core::worker::Worker;
use crate::resp::reply::is_error;
use crate::resp::request::Args;
use crate::threads::shared::Shared;

impl Worker {
    /// Takes a command of a transaction, or answers it if it has run already.
    pub(crate) fn take_queued(&mut self, place: usize, args: Args, shared: &Shared) -> Step {
        let executing = self.clients[place].executing.as_mut();
        let reply = executing.and_then(|one| one.known.front_mut()).and_then(Option::take);
        let taken = match reply {
            Some(reply) => self.answer_queued(place, args, &reply, shared),
            None => self.take(place, args, shared),
        };
        if taken == Step::Done
            && let Some(executing) = &mut self.clients[place].executing
        {
            executing.left -= 1;
            executing.next += 1;
            executing.known.pop_front();
        }
        taken
    }

    fn answer_queued(&mut self, place: usize, args: Args, reply: &[u8], shared: &Shared) -> Step {
        let sub = (args.len() > 1).then(|| args.get(1));
        if let Found::Row(found) = shared.table.find(args.get(0), sub) {
            self.clients[place].last_command = found;
            self.tally.called(found);
            if is_error(reply) {
                self.tally.failed(found, reply);
            }
            if self.is_monitored() {
                self.show(place, shared.table.row(found), args);
                let at = self.clients[place].executing.as_ref().map_or(0, |one| one.next);
                self.show_script_lines(place, at);
            }
            self.log_run(place, (shared.table.row(found), args), reply.len());
        }
        self.answer(place, reply);
        Step::Done
    }
}
