//! A name server whose names say what it answers.

use clap::Parser;
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

/// Answers questions for A and AAAA over UDP and TCP. Prints `ready`, then a line for each question: `udp` or `tcp`,
/// the type, the name.
///
/// A name is LABELS.KIND.ZONE. Labels of `x` and 8 or 32 hexadecimal digits are addresses, others only tell names
/// apart. KIND says what is answered:
///
/// at: all addresses.
/// hopN: an alias of the same name with hop(N-1), and nothing else; hop0 is `at`.
/// chainN: the same aliases and the addresses in one answer.
/// flip: one address after the other, question by question, with a time to live of 0.
/// many: a thousand public addresses, then the name's own.
/// silent: nothing is ever sent.
///
/// Any other name does not exist.
#[derive(Parser)]
#[command(verbatim_doc_comment)]
struct Arguments {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.53:53")]
    listen: SocketAddr,
    /// The zone that is served.
    #[arg(long, default_value = "target.example")]
    zone: String,
}

/// How long an answer may be kept, in seconds, unless it must not be.
const KEEP_SECONDS: u32 = 60;
/// What fits into a datagram here; more is cut, and asked again over TCP.
const DATAGRAM_BYTES_MAX: usize = 1_200;
/// Addresses that `many` answers besides the name's own, from this one on.
const MANY: u32 = 1_000;
const MANY_FROM: Ipv4Addr = Ipv4Addr::new(93, 184, 0, 0);

fn main() -> io::Result<()> {
    let Arguments { listen, zone } = Arguments::parse();
    let (udp, tcp) = (UdpSocket::bind(listen)?, TcpListener::bind(listen)?);
    let zone = Arc::new(Zone { suffix: format!(".{zone}."), turns: Mutex::default() });
    say("ready")?;
    let over_tcp = Arc::clone(&zone);
    std::thread::spawn(move || {
        for stream in tcp.incoming().flatten() {
            let zone = Arc::clone(&over_tcp);
            // Whoever asked has left.
            std::thread::spawn(move || drop(serve(stream, &zone)));
        }
    });
    let mut question = [0; 4_096];
    loop {
        let (length, from) = udp.recv_from(&mut question)?;
        if let Some(answer) = zone.answer("udp", question.get(..length).unwrap_or_default()) {
            let cut = if answer.len() > DATAGRAM_BYTES_MAX { truncated(&answer) } else { Some(answer) };
            // A caller that has gone needs no answer.
            let _sent = udp.send_to(&cut.unwrap_or_default(), from);
        }
    }
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush())
}

fn truncated(answer: &[u8]) -> Option<Vec<u8>> {
    Message::from_vec(answer).ok()?.truncate().to_vec().ok()
}

fn serve(mut stream: TcpStream, zone: &Zone) -> io::Result<()> {
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut question = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut question)?;
        let Some(answer) = zone.answer("tcp", &question) else { continue };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], &answer].concat())?;
    }
}

struct Zone {
    suffix: String,
    /// How often a name was asked for a type.
    turns: Mutex<HashMap<(String, RecordType), usize>>,
}

impl Zone {
    fn answer(&self, over: &str, question: &[u8]) -> Option<Vec<u8>> {
        let question = Message::from_vec(question).ok()?;
        let [query] = question.queries.as_slice() else { return None };
        let (name, kind) = (query.name().to_ascii().to_ascii_lowercase(), query.query_type());
        say(&format!("{over} {kind} {name}")).ok()?;
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        answer.metadata.message_type = MessageType::Response;
        answer.metadata.recursion_desired = question.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.add_query(query.clone());
        match self.records(&name, kind) {
            Some(Answer::Silence) => return None,
            Some(Answer::Records(records)) => drop(answer.add_answers(records)),
            None => answer.metadata.response_code = ResponseCode::NXDomain,
        }
        answer.to_vec().ok()
    }

    fn records(&self, name: &str, kind: RecordType) -> Option<Answer> {
        let below = name.strip_suffix(self.suffix.as_str())?;
        let (labels, how) = below.rsplit_once('.').unwrap_or(("", below));
        let own: Vec<IpAddr> = labels.split('.').filter_map(address).collect();
        let at = |owner: &str, ttl: u32, addresses: &[IpAddr]| {
            addresses.iter().filter_map(|address| record(owner, ttl, *address, kind)).collect::<Vec<_>>()
        };
        let records = match how {
            "at" | "hop0" | "chain0" => at(name, KEEP_SECONDS, &own),
            "silent" => return Some(Answer::Silence),
            "flip" => {
                let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
                let turn = turns.entry((name.to_owned(), kind)).or_default();
                let found = own.get(turn.checked_rem(own.len())?)?;
                *turn += 1;
                at(name, 0, &[*found])
            }
            "many" => {
                let many = (0..MANY).map(|n| IpAddr::from(Ipv4Addr::from(u32::from(MANY_FROM) + n)));
                at(name, KEEP_SECONDS, &many.chain(own).collect::<Vec<_>>())
            }
            _ => {
                let next = |hops: u32, word: &str| format!("{labels}.{word}{}{}", hops - 1, self.suffix);
                if let Some(hops) = how.strip_prefix("hop").and_then(|hops| hops.parse().ok()) {
                    vec![alias(name, &next(hops, "hop"))?]
                } else {
                    let hops: u32 = how.strip_prefix("chain")?.parse().ok()?;
                    let names =
                        (0..=hops).map(|n| format!("{labels}.chain{n}{}", self.suffix)).collect::<Vec<_>>();
                    let aliases = names.windows(2).rev().filter_map(|pair| alias(&pair[1], &pair[0]));
                    aliases.chain(at(&names[0], KEEP_SECONDS, &own)).collect()
                }
            }
        };
        Some(Answer::Records(records))
    }
}

enum Answer {
    Records(Vec<Record>),
    Silence,
}

/// The address in a label.
fn address(label: &str) -> Option<IpAddr> {
    let digits = label.strip_prefix('x')?;
    match digits.len() {
        8 => u32::from_str_radix(digits, 16).ok().map(|four| Ipv4Addr::from(four).into()),
        32 => u128::from_str_radix(digits, 16).ok().map(|six| Ipv6Addr::from(six).into()),
        _ => None,
    }
}

fn record(owner: &str, ttl: u32, address: IpAddr, kind: RecordType) -> Option<Record> {
    let data = match address {
        IpAddr::V4(four) if kind == RecordType::A => RData::A(A(four)),
        IpAddr::V6(six) if kind == RecordType::AAAA => RData::AAAA(AAAA(six)),
        _ => return None,
    };
    Some(Record::from_rdata(Name::from_ascii(owner).ok()?, ttl, data))
}

fn alias(owner: &str, to: &str) -> Option<Record> {
    let data = RData::CNAME(CNAME(Name::from_ascii(to).ok()?));
    Some(Record::from_rdata(Name::from_ascii(owner).ok()?, KEEP_SECONDS, data))
}
