//! A client, as CLIENT LIST shows it.

use crate::catalog::channels::Kind;
use crate::client::closing::Closing;
use crate::client::gate::Gate;
use crate::client::session::ClientInfo;
use crate::core::worker::Worker;
use rustix::fd::AsRawFd;

impl Worker {
    /// A client as CLIENT LIST shows it.
    pub(crate) fn describe(&self, place: usize) -> ClientInfo {
        let client = &self.clients[place];
        let session = &client.session;
        let state = self.lanes.state(client.lane_set);
        let now = self.now_seconds;
        let subscribed = |kind| client.subscriptions.as_ref().map_or(0, |known| known.count(kind));
        let is_executing = client.executing.is_some(); // EXEC has not ended yet
        let last = if is_executing { session.exec_row } else { client.last_command };
        let command = match last {
            usize::MAX => "NULL".into(),
            row => String::from_utf8_lossy(&self.shared.table.row(row).name).into_owned(),
        };
        let runs_block =
            is_executing || client.gate == Gate::Coordinator && !session.queued_rows.is_empty();
        ClientInfo {
            id: session.id,
            address: session.peer.address.clone(),
            local_address: session.peer.local_address.clone(),
            fd: client.fd.as_raw_fd(),
            name: session.name.clone(),
            user: session.user.to_vec(),
            lib_name: session.lib_name.clone(),
            lib_version: session.lib_version.clone(),
            // Saturating: the client may come from a worker whose clock is ahead.
            age: now.saturating_sub(session.created),
            idle: now.saturating_sub(session.last_active),
            is_unix: session.peer.is_unix,
            is_closing: client.closing != Closing::No,
            no_evict: session.no_evict,
            no_touch: state.no_touch,
            is_blocked: client.gate == Gate::Pause,
            can_redirect: session.can_redirect,
            db: state.db,
            resp: if state.resp3 { 3 } else { 2 },
            query_bytes: client.rx.len(),
            output_bytes: client.pending(),
            output_replies: client.owed.len(),
            wants_write: client.wants_write,
            command,
            total_input: session.input_bytes,
            total_output: session.output_bytes,
            total_commands: session
                .commands
                .saturating_sub(session.not_run + u64::from(is_executing)),
            sub: subscribed(Kind::Channel),
            psub: subscribed(Kind::Pattern),
            ssub: subscribed(Kind::Shard),
            multi: match &client.multi {
                Some(multi) => Some(multi.rows.len()),
                None if runs_block => Some(session.block),
                None => (session.has_queue && self.shared.keeps_queue).then_some(0),
            },
            in_multi: client.multi.is_some() || runs_block,
            is_queueing: client.multi.is_some(),
            queued_db: client.multi.as_ref().and_then(|multi| multi.db).unwrap_or(state.db),
            watched: 0,
            is_dirty: false,
            keeps_queue: self.shared.keeps_queue,
            is_monitor: session.monitor.is_on,
            place: (self.index, place, client.generation),
            is_tracking: client.is_tracking,
            tracks_all: session.tracking.as_ref().is_some_and(|mode| mode.prefixes.is_some()),
            is_redirect_broken: session.tracking.as_ref().is_some_and(|mode| mode.is_broken),
            is_caching: session.tracking.as_ref().is_some_and(|mode| mode.caching),
            redirect: session.tracking.as_ref().and_then(|mode| mode.redirect).map_or(0, |to| to.0),
            rights: self.rights_seen,
        }
    }
}
