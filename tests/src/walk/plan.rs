//! What a run is like: the shape of the cluster, what goes wrong and how often.

use std::time::Duration;

use rand::RngExt;
use synod::consensus::{Timing, VoteStyle};
use synod_runtime::world::Rng;

/// How many nodes of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Nodes that hold state and vote.
    pub mains: usize,
    /// Inexpensive nodes.
    pub auxiliaries: usize,
    /// Nodes that only host clients.
    pub members: usize,
}

/// How often each fault is drawn, against the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// A node crashes, and starts again later.
    pub crash: u32,
    /// The same, of the node that leads.
    pub crash_leader: u32,
    /// An auxiliary crashes, and starts again at once.
    pub crash_auxiliary: u32,
    /// One role's actor dies and is made anew.
    pub role: u32,
    /// The network falls into two parts.
    pub partition: u32,
    /// One direction between two nodes is cut.
    pub one_way: u32,
    /// One node is cut off.
    pub isolate: u32,
    /// No main hears another one; auxiliaries hear all.
    pub split: u32,
    /// Everybody hears everybody again.
    pub mend: u32,
    /// A main starts with an empty disk, as another incarnation.
    pub lose_main: u32,
    /// An auxiliary likewise.
    pub lose_auxiliary: u32,
    /// A node stops for a while and goes on as if nothing had been.
    pub pause: u32,
    /// A disk becomes slow, and as often as not full too, or is well again.
    pub stall: u32,
    /// Whoever leads is cut off, and does not notice.
    pub depose: u32,
    /// Whoever leads crashes, and no main hears another one when it is back.
    pub topple: u32,
    /// An operator has a node removed, or added, or named as leader, by way of any main.
    pub wish: u32,
}

impl Faults {
    /// How many kinds there are.
    pub const KINDS: usize = 16;

    /// Their names, in the order of the fields.
    pub const NAMES: [&str; Self::KINDS] = [
        "crash",
        "crash_leader",
        "crash_auxiliary",
        "role",
        "partition",
        "one_way",
        "isolate",
        "split",
        "mend",
        "lose_main",
        "lose_auxiliary",
        "pause",
        "stall",
        "depose",
        "topple",
        "wish",
    ];

    /// In the order of the fields.
    pub(super) fn weights(&self) -> [u32; Self::KINDS] {
        let Self {
            crash,
            crash_leader,
            crash_auxiliary,
            role,
            partition,
            one_way,
            isolate,
            split,
            mend,
            lose_main,
            lose_auxiliary,
            pause,
            stall,
            depose,
            topple,
            wish,
        } = *self;
        [
            crash,
            crash_leader,
            crash_auxiliary,
            role,
            partition,
            one_way,
            isolate,
            split,
            mend,
            lose_main,
            lose_auxiliary,
            pause,
            stall,
            depose,
            topple,
            wish,
        ]
    }
}

/// See the module's documentation. Times are in microseconds of the run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The cluster.
    pub shape: Shape,
    /// The roles' patience.
    pub timing: Timing,
    /// How a leader's vote travels.
    pub style: VoteStyle,
    /// How long anything may go wrong.
    pub chaos_us: u64,
    /// The mean time between faults; 0: nothing ever fails.
    pub fault_us: u64,
    /// Which faults.
    pub faults: Faults,
    /// Letters lost, of a thousand.
    pub loss: u32,
    /// Letters that come twice, of a thousand.
    pub duplicates: u32,
    /// The longest usual way of a letter.
    pub delay_us: u64,
    /// Letters that take up to fifty times as long, of a thousand.
    pub late: u32,
    /// The longest usual sync.
    pub sync_us: u64,
    /// The mean time between two calls of one home's clients.
    pub call_us: u64,
    /// A crashed node is down this long at most.
    pub down_us: u64,
    /// A cut lasts this long at most.
    pub cut_us: u64,
    /// A replica takes a snapshot after this much log.
    pub snapshot_log_bytes: u64,
    /// A disk may be lost although what is left may not be enough to go on: the run then only has
    /// to be safe.
    pub reckless: bool,
    /// Of a thousand crashes of a main: how often the end of its journal is torn.
    pub torn: u32,
    /// Of a thousand of those: how often that takes away what was durable, where somebody else knows
    /// it.
    pub torn_lost: u32,
    /// Whether to look into the machines, beyond what leaves them.
    pub inside: bool,
    /// Of a thousand configurations chosen, or coming into force: how often the leader crashes soon.
    pub crash_on_change: u32,
    /// Whether the script is played that ends with a newcomer leading in a lower ballot than the one
    /// that let it in (two mains only).
    pub scripted: bool,
    /// Whether everything must come to its end, once it is repaired.
    pub finish: bool,
}

/// Ten times less patience than by default: more happens in less time.
pub(super) fn quick() -> Timing {
    let ms = Duration::from_millis;
    Timing {
        heartbeat: ms(6),
        election: ms(40),
        stickiness: ms(30),
        hedge: ms(24),
        remove_unreachable: ms(60),
        remove: ms(200),
        resend: ms(20),
        probe: ms(8),
        auxiliary: ms(100),
        lease: ms(20),
        lease_renewal: ms(6),
        give_up: ms(120),
        ..Timing::default()
    }
}

impl Plan {
    /// Nothing fails.
    pub fn calm(shape: Shape) -> Self {
        Self {
            shape,
            timing: Timing::default(),
            style: VoteStyle::Split,
            chaos_us: 1_000_000,
            fault_us: 0,
            faults: Faults::default(),
            loss: 0,
            duplicates: 0,
            delay_us: 300,
            late: 0,
            sync_us: 1_000,
            call_us: 5_000,
            down_us: 0,
            cut_us: 0,
            snapshot_log_bytes: 8 * 1024,
            reckless: false,
            torn: 0,
            torn_lost: 500,
            inside: true,
            crash_on_change: 0,
            scripted: false,
            finish: true,
        }
    }

    /// Everything may go wrong; `rng` draws how much of each.
    pub fn chaos(shape: Shape, rng: &mut Rng) -> Self {
        let mut some =
            |most: u32| if rng.random_bool(0.5) { rng.random_range(0..=most) } else { 0 };
        let faults = Faults {
            crash: 1 + some(8),
            crash_leader: some(6),
            crash_auxiliary: some(4),
            role: some(6),
            partition: some(6),
            one_way: some(6),
            isolate: some(6),
            split: some(4),
            mend: 2 + some(4),
            lose_main: some(2),
            lose_auxiliary: some(2),
            pause: some(4),
            stall: some(4),
            ..Faults::default()
        };
        let (loss, duplicates, late) = (some(200), some(200), some(100));
        let torn = some(500);
        let styles = [VoteStyle::Split, VoteStyle::Split, VoteStyle::Piggyback];
        Self {
            timing: if rng.random_bool(0.8) { quick() } else { Timing::default() },
            style: styles[rng.random_range(0..styles.len())],
            chaos_us: rng.random_range(200_000..1_500_000),
            fault_us: rng.random_range(5_000..100_000),
            faults,
            loss,
            duplicates,
            delay_us: rng.random_range(100..3_000),
            late,
            sync_us: rng.random_range(50..6_000),
            call_us: rng.random_range(500..20_000),
            down_us: rng.random_range(1_000..300_000),
            cut_us: rng.random_range(5_000..500_000),
            snapshot_log_bytes: rng.random_range(300..20_000),
            // Disks are lost too, and two do not break their word at once.
            torn,
            torn_lost: 0,
            ..Self::calm(shape)
        }
    }

    /// Operators remove nodes and add them again, with the disks they had, while others fail.
    pub fn operated(shape: Shape, rng: &mut Rng) -> Self {
        let plan = Self::restless(shape, rng);
        Self { faults: Faults { wish: rng.random_range(4..30), ..plan.faults }, ..plan }
    }

    /// Mains come and go all the time, and leaders do not outlive a change.
    pub fn restless(shape: Shape, rng: &mut Rng) -> Self {
        let ms = Duration::from_millis;
        let faults = Faults {
            crash: 6,
            crash_leader: rng.random_range(0..6),
            partition: rng.random_range(0..4),
            isolate: rng.random_range(0..6),
            split: rng.random_range(0..6),
            mend: 3,
            ..Faults::default()
        };
        Self {
            timing: Timing { remove_unreachable: ms(30), remove: ms(60), ..quick() },
            chaos_us: rng.random_range(500_000..3_000_000),
            fault_us: rng.random_range(10_000..60_000),
            faults,
            delay_us: rng.random_range(100..1_000),
            sync_us: rng.random_range(50..1_500),
            // Where little is asked, a configuration comes into force long before it is used.
            call_us: if rng.random_bool(0.5) {
                rng.random_range(2_000..8_000)
            } else {
                rng.random_range(50_000..200_000)
            },
            down_us: rng.random_range(1_000..250_000),
            cut_us: rng.random_range(20_000..250_000),
            snapshot_log_bytes: rng.random_range(300..4_000),
            crash_on_change: rng.random_range(0..900),
            ..Self::calm(shape)
        }
    }
}
