//! RFC 6455 section 5 to the letter: decodes all bytes so far from the start each time, and keeps
//! nothing.

use super::LIMITS;

/// The outcome of a stream: a line per message, and the close code it broke with, if it did.
pub type Decoded = (Vec<String>, Option<u16>);

struct Frame {
    fin: bool,
    opcode: u8,
    announced: u64,
    /// As much as has arrived, unmasked.
    payload: Vec<u8>,
    wire_bytes: usize,
}

struct Message {
    is_text: bool,
    bytes: Vec<u8>,
    fragments: u32,
}

/// Decodes all of `wire`, up to its end or to the first error.
pub fn decode(wire: &[u8]) -> Decoded {
    let mut said = Vec::new();
    let mut message = None;
    let mut rest = wire;
    loop {
        let frame = match frame(rest) {
            Ok(Some(frame)) => frame,
            Ok(None) => return (said, None),
            Err(code) => return (said, Some(code)),
        };
        rest = &rest[frame.wire_bytes..];
        let whole = frame.payload.len() as u64 == frame.announced;
        if frame.opcode < 8 {
            match data(&mut message, &frame, whole) {
                Ok(line) => said.extend(line),
                Err(code) => return (said, Some(code)),
            }
        }
        if !whole {
            return (said, None);
        }
        match frame.opcode {
            8 => return close(said, &frame.payload),
            9 => said.push(format!("ping {}", frame.payload.escape_ascii())),
            10 => said.push("pong".to_owned()),
            _ => {}
        }
    }
}

fn frame(wire: &[u8]) -> Result<Option<Frame>, u16> {
    let Some(&first) = wire.first() else { return Ok(None) };
    let (fin, opcode) = (first >= 0x80, first & 15);
    let control = opcode >= 8;
    if first & 0x70 != 0 || matches!(opcode, 3..=7 | 11..) || (control && !fin) {
        return Err(1002);
    }
    let Some(&second) = wire.get(1) else { return Ok(None) };
    if second < 0x80 || (control && second & 127 > 125) {
        return Err(1002);
    }
    let field = match second & 127 {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    if field == 8 && wire.get(2).is_some_and(|&top| top >= 0x80) {
        return Err(1002);
    }
    let Some(length) = wire.get(2..2 + field) else { return Ok(None) };
    let length = length.iter().fold(0_u64, |sum, &byte| sum << 8 | u64::from(byte));
    let announced = if field == 0 { u64::from(second & 127) } else { length };
    if (field == 2 && announced < 126) || (field == 8 && announced < 65_536) {
        return Err(1002);
    }
    let Some(key) = wire.get(2 + field..6 + field) else { return Ok(None) };
    let masked = wire[6 + field..].iter().take(announced as usize);
    let payload: Vec<u8> = masked.zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
    let wire_bytes = 6 + field + payload.len();
    Ok(Some(Frame { fin, opcode, announced, payload, wire_bytes }))
}

fn data(slot: &mut Option<Message>, frame: &Frame, whole: bool) -> Result<Option<String>, u16> {
    if (frame.opcode == 0) != slot.is_some() {
        return Err(1002);
    }
    let is_text = frame.opcode == 1;
    let message = slot.get_or_insert(Message { is_text, bytes: Vec::new(), fragments: 0 });
    message.fragments += 1;
    if message.fragments > LIMITS.fragments_max {
        return Err(1008);
    }
    if message.bytes.len() as u64 + frame.announced > LIMITS.message_bytes_max as u64 {
        return Err(1009);
    }
    message.bytes.extend(&frame.payload);
    let ends = whole && frame.fin;
    if message.is_text && !is_text_so_far(&message.bytes, ends) {
        return Err(1007);
    }
    if !ends {
        return Ok(None);
    }
    let kind = if message.is_text { "text" } else { "binary" };
    let line = format!("{kind} {}", message.bytes.escape_ascii());
    *slot = None;
    Ok(Some(line))
}

fn is_text_so_far(bytes: &[u8], ends: bool) -> bool {
    match std::str::from_utf8(bytes) {
        Ok(_) => true,
        Err(error) => !ends && error.error_len().is_none(),
    }
}

fn close(mut said: Vec<String>, payload: &[u8]) -> Decoded {
    let code = match payload {
        [] => {
            said.push("close".to_owned());
            return (said, None);
        }
        [_] => return (said, Some(1002)),
        [high, low, ..] => u16::from_be_bytes([*high, *low]),
    };
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return (said, Some(1002));
    }
    if std::str::from_utf8(&payload[2..]).is_err() {
        return (said, Some(1007));
    }
    said.push(format!("close {code} {}", payload[2..].escape_ascii()));
    (said, None)
}
