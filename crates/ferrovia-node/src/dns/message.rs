//! Questions and answers as bytes.

use std::net::Ipv4Addr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::zone::{Verdict, Zone};

/// How long an answer holds, in seconds: an address is a service's for good, but a name may come any moment.
const ANSWER_TTL_S: u32 = 5;
/// How long "there is no such name" holds, in seconds.
const NEGATIVE_TTL_S: u32 = 0;
/// Largest UDP payload that we say we take, in bytes (RFC 6891 section 6.2.5).
const UDP_PAYLOAD_BYTES: u16 = 1232;
/// Bytes of a message's head.
pub const HEAD_BYTES: usize = 12;

/// What to do with a question.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// Send this.
    Bytes(Vec<u8>),
    /// Ask the host's resolvers.
    Forward,
    /// Nothing: it is no question.
    Nothing,
}

/// Answers what can be answered from the zone.
pub fn answer(zone: &Zone, source: Ipv4Addr, question: &[u8]) -> Reply {
    let Ok(message) = Message::from_vec(question) else {
        return failure(question, ResponseCode::FormErr).map_or(Reply::Nothing, Reply::Bytes);
    };
    if message.metadata.message_type != MessageType::Query {
        return Reply::Nothing;
    }
    if message.metadata.op_code != OpCode::Query {
        return failure(question, ResponseCode::NotImp).map_or(Reply::Nothing, Reply::Bytes);
    }
    let [query] = message.queries.as_slice() else {
        return failure(question, ResponseCode::FormErr).map_or(Reply::Nothing, Reply::Bytes);
    };
    let name = query.name().to_lowercase().to_ascii();
    let verdict = match query.query_class() {
        DNSClass::IN => zone.decide(source, name.trim_end_matches('.')),
        _ => Verdict::Refuse,
    };
    let mut response = Message::response(message.metadata.id, OpCode::Query);
    response.metadata.recursion_desired = message.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.add_query(query.clone());
    if message.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_PAYLOAD_BYTES);
        response.set_edns(edns);
    }
    match verdict {
        Verdict::Forward => return Reply::Forward,
        Verdict::Refuse => response.metadata.response_code = ResponseCode::Refused,
        Verdict::Unknown => {
            response.metadata.authoritative = true;
            response.metadata.response_code = ResponseCode::NXDomain;
            response.add_authority(start_of_authority());
        }
        Verdict::Service(address) if matches!(query.query_type(), RecordType::A | RecordType::ANY) => {
            response.metadata.authoritative = true;
            response.add_answer(Record::from_rdata(
                query.name().clone(),
                ANSWER_TTL_S,
                RData::A(A(address)),
            ));
        }
        Verdict::Service(_) | Verdict::Empty => {
            response.metadata.authoritative = true;
            response.add_authority(start_of_authority());
        }
    }
    response.to_vec().map_or(Reply::Nothing, Reply::Bytes)
}

/// The answer to a question that cannot be answered; `None` when there is not even a head.
pub fn failure(question: &[u8], code: ResponseCode) -> Option<Vec<u8>> {
    let head = question.first_chunk::<HEAD_BYTES>()?;
    // An answer is never answered.
    if head[2] & 0x80 != 0 {
        return None;
    }
    let id = u16::from_be_bytes([head[0], head[1]]);
    let mut response = Message::error_msg(id, OpCode::Query, code);
    if let Ok(message) = Message::from_vec(question) {
        response.add_queries(message.queries);
    }
    response.metadata.recursion_desired = head[2] & 1 != 0;
    response.metadata.recursion_available = true;
    response.to_vec().ok()
}

/// Whether `answer` answers `question`: its id, and the question in it.
pub fn belongs(question: &[u8], answer: &[u8]) -> bool {
    let (Some(asked), Some(told)) = (question_of(question), question_of(answer)) else {
        return false;
    };
    answer[2] & 0x80 != 0 && question[..2] == answer[..2] && asked.eq_ignore_ascii_case(told)
}

/// The bytes of the only question of a message.
fn question_of(message: &[u8]) -> Option<&[u8]> {
    if message.len() < HEAD_BYTES || message[4..6] != [0, 1] {
        return None;
    }
    let mut at = HEAD_BYTES;
    loop {
        let length = usize::from(*message.get(at)?);
        // A pointer has nothing to point at in the first name of a message.
        if length >= 64 {
            return None;
        }
        at += 1 + length;
        if length == 0 {
            break;
        }
    }
    message.get(HEAD_BYTES..at + 4)
}

fn start_of_authority() -> Record {
    let name = || Name::from_ascii("ferrovia.internal.").unwrap_or_default();
    let soa = SOA::new(name(), name(), 1, 60, 60, 60, NEGATIVE_TTL_S);
    Record::from_rdata(name(), NEGATIVE_TTL_S, RData::SOA(soa))
}

#[cfg(test)]
mod tests {
    use ferrovia_core::network::AddressPlan;
    use hickory_proto::op::Query;
    use proptest::prelude::*;

    use super::*;

    fn question(name: &str) -> Vec<u8> {
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        message.to_vec().unwrap()
    }

    #[test]
    fn unknown_sources_are_refused_and_answers_are_not_answered() {
        let zone = Zone::new(&AddressPlan::default(), []);
        let asked = question("example.com.");
        let Reply::Bytes(told) = answer(&zone, Ipv4Addr::LOCALHOST, &asked) else {
            panic!()
        };
        assert_eq!(
            Message::from_vec(&told).unwrap().metadata.response_code,
            ResponseCode::Refused
        );
        assert!(belongs(&asked, &told));
        assert_eq!(answer(&zone, Ipv4Addr::LOCALHOST, &told), Reply::Nothing);
        assert!(!belongs(&question("example.org."), &told));
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..80), cut in 0..40_usize) {
            let zone = Zone::new(&AddressPlan::default(), []);
            answer(&zone, Ipv4Addr::LOCALHOST, &bytes);
            let asked = question("a.example.com.");
            belongs(&bytes, &asked);
            answer(&zone, Ipv4Addr::LOCALHOST, &asked[..cut.min(asked.len())]);
        }
    }
}
