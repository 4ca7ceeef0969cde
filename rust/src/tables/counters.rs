//! A worker's counters: plain numbers, which it publishes once a turn for other threads to read.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counts since the worker began.
        #[derive(Debug, Default, Clone, Copy)]
        pub struct Counters { $($(#[$doc])* pub $name: u64),* }

        /// The counts published last.
        #[derive(Debug, Default)]
        pub struct Stats { $($name: AtomicU64),* }

        impl Stats {
            /// Publishes the counts; only for the worker that owns them.
            pub fn publish(&self, counters: &Counters) {
                $(self.$name.store(counters.$name, Ordering::Relaxed);)*
            }

            /// The name and value of each count.
            #[must_use]
            pub fn read(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Ordering::Relaxed))),*]
            }
        }
    };
}

counters! {
    /// Commands taken from clients.
    commands,
    /// Clients connected now.
    clients,
    /// Clients with subscriptions.
    subscribers,
    /// Connections accepted.
    connections,
    /// Connections refused: `maxclients` exceeded, or protected mode.
    rejected_connections,
    /// Bytes read from clients.
    net_input_bytes,
    /// Bytes written to clients.
    net_output_bytes,
    /// Turns of the loop.
    turns,
    /// Time between waking up and going to sleep.
    awake_nanoseconds,
    /// Clients moved to other workers.
    clients_moved,
    /// Writes to instances; commands divided by this is the batch depth.
    lane_writes,
    /// Commands written to instances.
    lane_commands,
    /// Writes over several instances that were committed without the coordinator.
    committed_writes,
    /// Commits that ran them; one commit can hold many writes.
    commits,
    /// Commits among these that were handed to the coordinator.
    commits_given_up,
    /// Blocking commands that did not have to wait.
    unwaited,
    /// Scripts that ran without the coordinator.
    lane_scripts,
    /// Lanes open now.
    lanes,
    /// Lanes among these that are used for something large of one client.
    lanes_aside,
    /// Lanes closed after an error that made them unreliable.
    lanes_broken,
    /// Clients closed because their buffers were too large.
    clients_evicted,
    /// Clients closed because their input would have exceeded `client-query-buffer-limit`.
    input_limit_disconnections,
    /// Clients whose command waits for the end of a CLIENT PAUSE.
    clients_paused,
    /// Clients closed for protocol errors.
    protocol_errors,
}
