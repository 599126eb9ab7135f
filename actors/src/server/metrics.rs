//! What a node counts.

use synod_runtime::{
    journal::Journal,
    telemetry::{Family, Kind, Metrics},
};

macro_rules! families {
    ($($constant:ident $kind:ident $name:literal $help:literal)*) => {$(
        #[doc = $help]
        pub(super) const $constant: Family = Family { name: $name, help: $help, kind: Kind::$kind };
    )*};
}

families! {
    MESSAGES Counter "synod_protocol_messages_received_total"
        "Messages of other nodes' roles, by receiving role; signs of life apart."
    JOURNAL_BYTES Counter "synod_journal_bytes_total" "Bytes written to the journal."
    JOURNAL_SYNCS Counter "synod_journal_syncs_total" "Syncs of the journal."
    SYNC_SECONDS Histogram "synod_journal_sync_seconds" "How long a sync of the journal takes."
    LONG_TURN_SECONDS Histogram "synod_long_turn_seconds"
        "Turns of a role that held up all roles of its node for 20 ms or more, by role."
    SCRUBBED_BYTES Counter "synod_journal_scrubbed_bytes_total"
        "Bytes of the journal read again in the background and found good."
    DAMAGE Counter "synod_journal_damage_total"
        "How often something durable in the journal could not be read again; it was written anew."
    SNAPSHOT_DAMAGE Counter "synod_snapshot_damage_total"
        "How many snapshots could not be read again; a new one was taken in place of each."
    STEPS Counter "synod_steps_chosen_total" "Steps of the log known to be chosen."
    COMMANDS Counter "synod_commands_applied_total" "Commands executed; the position in the log."
    DIFFERENCES Counter "synod_state_differences_total"
        "How often another main was seen to have come to another state."
    LEADS Gauge "synod_is_leader" "1 while this node leads the log."
    VIEW Gauge "synod_view" "The number of the newest view; at an auxiliary, of its configuration."
    ROLE_CHANGES Counter "synod_role_changes_total"
        "New holders of a role, and releases without a next one, since this node started."
    SERVICE_MOVES Counter "synod_service_moves_total"
        "How often a managed service was seen to go to another node, since this node started."
    HOLDOFF_SECONDS Histogram "synod_holdoff_seconds"
        "How long a managed service was seen not to serve, from one primary, or life, to the next."
    MULTICAST_DELIVERED Counter "synod_multicast_delivered_total"
        "Numbers of a group that were delivered at this node."
    MULTICAST_ORDER_QUERIES Counter "synod_multicast_order_queries_total"
        "Questions of this node to commit servers for the messages of numbers it missed."
    MULTICAST_DATA_QUERIES Counter "synod_multicast_data_queries_total"
        "Questions of this node to data servers for messages it missed."
    MULTICAST_UNSAID Counter "synod_multicast_unsaid_total"
        "What this node did not say to one it feeds, since the path takes no more: that node asks for it."
    COMMAND_SECONDS Histogram "synod_command_seconds"
        "From a client's command to its answer, at the client's node."
}

/// Makes the counters of what every kind of role receives, at 0: one that came with its first message
/// would look as if it had none before, and a rate over it would lack the first.
pub(super) fn name_roles(metrics: &Metrics) {
    for role in ROLES {
        let _at_zero = metrics.counter(&MESSAGES, &[("role", role)]);
    }
}

/// As people are told of the roles, wherever they are.
const ROLES: [&str; 11] = [
    "acceptor",
    "proposer",
    "learner",
    "register",
    "sequencer",
    "data",
    "commit",
    "checkpoint",
    "monitor",
    "manager",
    "heartbeat",
];

/// Keeps the journal's counters up to date whenever somebody looks.
pub(super) fn follow_journal(metrics: &Metrics, journal: &Journal) {
    journal.observe_syncs(metrics.histogram(&SYNC_SECONDS, &[]));
    let journal = journal.clone();
    metrics.collect(move |metrics| {
        let stats = journal.stats();
        metrics.counter(&JOURNAL_BYTES, &[]).follow(stats.bytes);
        metrics.counter(&JOURNAL_SYNCS, &[]).follow(stats.syncs);
    });
}
