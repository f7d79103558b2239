//! kill -9 under load, again and again on one directory: every acknowledged write is there afterwards.
//! What a power loss adds to that is `power_loss`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use cortex_client::{
    Client, Error, Pipeline, Window,
    api::{self, Page, Raw, encoded},
};
use rmpv::Value;

use daemon::{Daemon, Guarded, TIME_LIMIT, cortexd};
use rpc::{field, map, packed};

use crate::support::{daemon, rpc};

const ROUNDS: u64 = 20;
const WRITERS: u64 = 16;
const TABLES: [&str; 2] = ["even", "odd"];

/// Keys of one writer: few, so that they are overwritten and deleted all the time.
const KEYS: u64 = 12;

/// Writes of one writer under way at a time: some are in doubt whenever the kill comes.
const UNDER_WAY: Window = Window { requests: 8, bytes: usize::MAX };

/// A record is filled up to this: several pages at the most.
const PADDING: u64 = 9_000;

/// The longest that a daemon lives under load, and that one lives which is killed while it starts.
const LIFE_MS: u64 = 450;
const SHORT_LIFE_MS: u64 = 60;

/// Every draw of a run follows from its seed.
struct Luck(u64);

impl Luck {
    /// SplitMix64.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

/// The records of one writer by their keys, each as it was encoded.
type Records = BTreeMap<String, Vec<u8>>;

#[derive(Clone, Debug)]
enum Write {
    Put(String, Vec<u8>),
    Delete(String),
}

impl Write {
    /// The next write of a writer; its number in the record tells it from every other.
    fn draw(writer: u64, number: u64, luck: &mut Luck) -> Self {
        let key = format!("{writer}-{}", luck.below(KEYS));
        if luck.below(4) == 0 {
            return Self::Delete(key);
        }
        let padding = vec![0x5a; usize::try_from(luck.below(PADDING)).expect("small")];
        let record = map([
            ("id", key.as_str().into()),
            ("number", number.into()),
            ("padding", Value::Binary(padding)),
        ]);
        Self::Put(key, packed(&record))
    }

    /// What could not be sent is in doubt too: some of it may have been.
    fn send(self, table: &str, pipeline: &mut Pipeline<'_, Self>) -> Result<(), Error> {
        match &self {
            Self::Put(_, record) => {
                let record = record.clone();
                pipeline.send(&api::Put { table, record: Raw(&record) }, self)
            }
            Self::Delete(key) => {
                let key = encoded(key);
                pipeline.send(&api::Delete { table, key: Raw(&key) }, self)
            }
        }
    }

    fn apply(&self, records: &mut Records) {
        match self {
            Self::Put(key, record) => drop(records.insert(key.clone(), record.clone())),
            Self::Delete(key) => drop(records.remove(key)),
        }
    }
}

/// One writer over all rounds.
struct Writer {
    id: u64,
    luck: Luck,
    written: u64,
    /// What must be there.
    records: Records,
    /// What was sent after that and had no answer, in order: any number of the first may be there.
    in_doubt: Vec<Write>,
}

impl Writer {
    fn table(&self) -> &'static str {
        TABLES[usize::from(!self.id.is_multiple_of(2))]
    }

    /// Writes until the daemon is gone.
    fn write(&mut self, socket: &Path, started: &Barrier) {
        let mut client = Client::connect(socket, Some(TIME_LIMIT)).expect("connect to the daemon");
        let table = self.table();
        let mut pipeline = client.pipeline::<Write>(UNDER_WAY);
        started.wait();
        let end = loop {
            while pipeline.has_room() {
                let write = Write::draw(self.id, self.written, &mut self.luck);
                self.written += 1;
                let _seen_below = write.send(table, &mut pipeline);
            }
            match pipeline.next_answer() {
                Ok(Some(answer)) => {
                    assert_eq!(answer.outcome, Ok(()), "{:?}", answer.tag);
                    answer.tag.apply(&mut self.records);
                }
                Ok(None) => unreachable!("there is always something under way"),
                Err(error) => break error,
            }
        };
        assert!(matches!(end, Error::Closed), "the daemon was killed, so: {end}");
        self.in_doubt = pipeline.unanswered().cloned().collect();
    }

    /// Finds that what is there is what was acknowledged, and then some of what was sent.
    fn check(&mut self, found: &Records) {
        let prefix = format!("{}-", self.id);
        let own = found.iter().filter(|(key, _)| key.starts_with(&prefix));
        let own: Records = own.map(|(key, record)| (key.clone(), record.clone())).collect();
        let acknowledged = self.records.clone();
        let mut in_doubt = std::mem::take(&mut self.in_doubt).into_iter();
        while self.records != own {
            let Some(write) = in_doubt.next() else {
                panic!(
                    "writer {}: acknowledged {}, found {}",
                    self.id,
                    shown(&acknowledged),
                    shown(&own)
                );
            };
            write.apply(&mut self.records);
        }
    }
}

fn shown(records: &Records) -> String {
    let shown = records.iter().map(|(key, record)| {
        let record = rmpv::decode::read_value(&mut record.as_slice()).expect("a record");
        format!("{key}={}", field(&record, "number").expect("its number"))
    });
    shown.collect::<Vec<_>>().join(" ")
}

/// Everything that the daemon holds, by table; what it says of totals must be just that.
fn contents(daemon: &Daemon) -> Vec<Records> {
    let mut client = Client::connect(&daemon.socket(), Some(TIME_LIMIT)).expect("connect");
    let (mut records, mut bytes) = (0, 0);
    let mut tables = Vec::new();
    for table in TABLES {
        let found = all(&mut client, table);
        let held = found.iter().map(|(key, record)| key.len() + record.len()).sum::<usize>();
        let info = client.call(&api::TableInfo { table }).expect("an answer");
        assert_eq!((info.records, info.bytes), (found.len() as u64, held as u64), "{table}");
        let keys = client.call(&api::Keys { table, page: Page::default() }).expect("an answer");
        assert!(keys.iter().eq(found.keys()), "{table}");
        records += found.len() as u64;
        bytes += held as u64;
        tables.push(found);
    }
    let status = client.call(&api::Status {}).expect("an answer");
    assert_eq!(status.tables, TABLES.len() as u64);
    assert_eq!((status.records, status.bytes), (records, bytes));
    tables
}

fn all(client: &mut Client, table: &str) -> Records {
    let mut found = Records::new();
    let mut elements =
        client.call_streamed(&api::All { table, page: Page::default() }).expect("an answer");
    while let Some(bytes) = elements.next_element().expect("a record") {
        let record = rmpv::decode::read_value(&mut &*bytes).expect("a record");
        let key = field(&record, "id").and_then(Value::as_str).expect("a key").to_owned();
        assert_eq!(found.insert(key, bytes.to_vec()), None, "a record is listed twice");
    }
    found
}

/// Starts a daemon and kills it a moment later: while it opens the store, or soon after.
fn start_and_kill(daemon: &Daemon, life: Duration) {
    let mut command = cortexd();
    command.arg("--socket").arg(daemon.socket()).arg("--data-dir").arg(daemon.data_dir());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let process = Guarded(command.spawn().expect("start the daemon"));
    thread::sleep(life);
    drop(process);
}

/// holds V2, E3
#[test]
fn every_acknowledged_write_is_there_after_a_kill() {
    let seed = std::env::var("CORTEX_TEST_SEED").map_or_else(
        |_| u64::from_be_bytes(cortexd::sys::random::id()[..8].try_into().expect("8 of 16")),
        |seed| seed.parse().expect("CORTEX_TEST_SEED is a number"),
    );
    println!("CORTEX_TEST_SEED={seed}"); // shown if the test fails
    let mut luck = Luck(seed);
    let mut daemon = Daemon::start();
    TABLES.into_iter().for_each(|table| daemon.connect().create(table));
    let mut writers: Vec<_> = (0..WRITERS)
        .map(|id| Writer {
            id,
            luck: Luck(seed ^ id),
            written: 0,
            records: Records::new(),
            in_doubt: Vec::new(),
        })
        .collect();

    for round in 0..ROUNDS {
        let started = Barrier::new(writers.len() + 1);
        let socket = daemon.socket();
        thread::scope(|scope| {
            for writer in &mut writers {
                scope.spawn(|| writer.write(&socket, &started));
            }
            started.wait();
            thread::sleep(Duration::from_millis(luck.below(LIFE_MS)));
            daemon.kill();
        });
        if luck.below(3) == 0 {
            start_and_kill(&daemon, Duration::from_millis(luck.below(SHORT_LIFE_MS)));
        }
        daemon.restart();
        let found = contents(&daemon);
        for writer in &mut writers {
            let table = usize::from(!writer.id.is_multiple_of(2));
            writer.check(&found[table]);
        }
        println!("round {round}: {} records", found.iter().map(BTreeMap::len).sum::<usize>());
    }
    let written: u64 = writers.iter().map(|writer| writer.written).sum();
    assert!(written > ROUNDS * WRITERS * 10, "{written} writes are no load");
    assert!(daemon.stop().success());
}
