//! A worker's counters: plain numbers of its own, published once a turn for others to read.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counts since the worker began.
        #[derive(Debug, Default, Clone, Copy)]
        pub struct Counters { $($(#[$doc])* pub $name: u64),* }

        /// The last published counts.
        #[derive(Debug, Default)]
        pub struct Stats { $($name: AtomicU64),* }

        impl Stats {
            /// For the worker that owns the counts.
            pub fn publish(&self, counters: &Counters) {
                $(self.$name.store(counters.$name, Ordering::Relaxed);)*
            }

            /// Name and value of each, for readers.
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
    /// Connections refused: over `maxclients`, protected mode.
    rejected_connections,
    /// Bytes read from clients.
    net_input_bytes,
    /// Bytes written to clients.
    net_output_bytes,
    /// Turns of the loop.
    turns,
    /// Time between waking and going to sleep.
    awake_nanoseconds,
    /// Clients given to other workers.
    clients_moved,
    /// Writes to instances; commands divided by this is the batch depth.
    lane_writes,
    /// Commands written to instances.
    lane_commands,
    /// Writes over several instances that were done without the coordinator.
    committed_writes,
    /// How many times some of them were, together.
    commits,
    /// Of these, how often they were left to the coordinator.
    commits_given_up,
    /// Commands that might have waited for their keys, and need not.
    unwaited,
    /// Scripts that ran without the coordinator.
    lane_scripts,
    /// Lanes open now.
    lanes,
    /// Of these, used for something big of one client.
    lanes_aside,
    /// Lanes closed because they could not be trusted any more.
    lanes_broken,
    /// Clients closed because their buffers were too large.
    clients_evicted,
    /// Clients closed because more than `client-query-buffer-limit` would have had to be kept of them.
    input_limit_disconnections,
    /// Clients whose command waits for the end of a CLIENT PAUSE.
    clients_paused,
    /// Clients closed for not speaking the protocol.
    protocol_errors,
}
