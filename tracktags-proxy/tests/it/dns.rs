//! A name server of the tests: it answers over UDP and TCP what a zone of a few lines says, byte by byte, so that no
//! library of the resolver's own makes the answers it reads.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// What a name answers, question after question in turn.
#[derive(Clone, Debug)]
pub(crate) enum Record {
    /// These addresses.
    Addresses(Vec<IpAddr>),
    /// Another name, with its addresses.
    Alias(&'static str, Vec<IpAddr>),
    /// Nothing at all is sent.
    Silence,
    /// A failure of the server.
    Failure,
}

pub(crate) fn addresses(texts: &[&str]) -> Record {
    Record::Addresses(texts.iter().map(|text| text.parse().unwrap()).collect())
}

pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    /// Questions over TCP.
    pub(crate) over_tcp: Arc<AtomicUsize>,
}

struct Zone {
    records: HashMap<&'static str, Vec<Record>>,
    turns: Mutex<HashMap<(String, u16), usize>>,
}

const TYPE_A: u16 = 1;
const TYPE_CNAME: u16 = 5;
const TYPE_AAAA: u16 = 28;
/// What fits into a datagram here; more is cut and asked again over TCP.
const DATAGRAM_BYTES_MAX: usize = 1_200;

impl NameServer {
    pub(crate) fn start(records: &[(&'static str, &[Record])]) -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).unwrap();
        let records = records.iter().map(|(name, records)| (*name, records.to_vec())).collect();
        let zone = Arc::new(Zone { records, turns: Mutex::default() });
        let over_tcp = Arc::new(AtomicUsize::new(0));
        let (udp_zone, count) = (Arc::clone(&zone), Arc::clone(&over_tcp));
        std::thread::spawn(move || {
            let mut buffer = [0; 2_048];
            while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                if let Some(answer) = udp_zone.answer(&buffer[..length], Some(DATAGRAM_BYTES_MAX)) {
                    let _sent = udp.send_to(&answer, from);
                }
            }
        });
        std::thread::spawn(move || {
            for mut stream in tcp.incoming().flatten() {
                let mut length = [0; 2];
                while stream.read_exact(&mut length).is_ok() {
                    count.fetch_add(1, Ordering::SeqCst);
                    let mut question = vec![0; u16::from_be_bytes(length).into()];
                    stream.read_exact(&mut question).unwrap();
                    if let Some(answer) = zone.answer(&question, None) {
                        let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                        stream.write_all(&[&length[..], &answer].concat()).unwrap();
                    }
                }
            }
        });
        Self { address, over_tcp }
    }
}

impl Zone {
    fn answer(&self, question: &[u8], bytes_max: Option<usize>) -> Option<Vec<u8>> {
        let (name, end) = read_name(question);
        let kind = u16::from_be_bytes([question[end], question[end + 1]]);
        let record = self.next(&name, kind, bytes_max.is_none());
        let (code, owner, addresses) = match record {
            Some(Record::Addresses(addresses)) => (0, None, addresses),
            Some(Record::Alias(to, addresses)) => (0, Some(to), addresses),
            Some(Record::Silence) => return None,
            Some(Record::Failure) => (2, None, Vec::new()),
            None => (3, None, Vec::new()),
        };
        let mut rows = Vec::new();
        if let Some(to) = owner {
            rows.push(row(&[0xc0, 12], TYPE_CNAME, &wire_name(to)));
        }
        let owner = owner.map_or_else(|| vec![0xc0, 12], wire_name);
        for address in addresses {
            match address {
                IpAddr::V4(four) if kind == TYPE_A => rows.push(row(&owner, TYPE_A, &four.octets())),
                IpAddr::V6(six) if kind == TYPE_AAAA => rows.push(row(&owner, TYPE_AAAA, &six.octets())),
                _ => {}
            }
        }
        let cut = bytes_max.is_some_and(|max| rows.iter().map(Vec::len).sum::<usize>() > max);
        if cut {
            rows.clear();
        }
        let count = u16::try_from(rows.len()).unwrap().to_be_bytes();
        let flags = [0x81 | if cut { 0x02 } else { 0 }, 0x80 | code];
        let head = [&question[..2], &flags, &[0, 1], &count, &[0, 0, 0, 0]].concat();
        Some([head, question[12..end + 4].to_vec(), rows.concat()].concat())
    }

    /// The record whose turn it is. A question asked again over TCP is the same turn.
    fn next(&self, name: &str, kind: u16, again: bool) -> Option<Record> {
        let records = self.records.get(name)?;
        let mut turns = self.turns.lock().unwrap();
        let turn = turns.entry((name.to_owned(), kind)).or_default();
        let found = *turn - usize::from(again && *turn > 0);
        *turn = found + 1;
        Some(records[found % records.len()].clone())
    }
}

/// The name of the first question, and where it ends.
fn read_name(question: &[u8]) -> (String, usize) {
    let mut at = 12;
    let mut labels = Vec::new();
    while question[at] != 0 {
        let length = usize::from(question[at]);
        labels.push(String::from_utf8(question[at + 1..=at + length].to_ascii_lowercase()).unwrap());
        at += length + 1;
    }
    (labels.join("."), at + 1)
}

fn wire_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// A resource record with a time to live of 0.
fn row(owner: &[u8], kind: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap().to_be_bytes();
    [owner, &kind.to_be_bytes(), &[0, 1], &[0, 0, 0, 0], &length, data].concat()
}
