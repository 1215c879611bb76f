//! The wire form of protobuf as a tree that can be changed anywhere and encoded again.

/// The fields of a message.
pub type Fields = Vec<(u64, Wire)>;

/// What a field holds.
#[derive(Clone)]
pub enum Wire {
    /// A number of variable length.
    Varint(u64),
    /// Four or eight bytes.
    Fixed(Vec<u8>),
    /// Bytes of a length of their own.
    Bytes(Vec<u8>),
    /// Bytes that are fields.
    Message(Vec<(u64, Wire)>),
}

/// The fields of a message; `None` where the bytes are none.
pub fn parse(mut bytes: &[u8], depth: usize) -> Option<Vec<(u64, Wire)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let (field, kind) = (key >> 3, key & 7);
        if !(1..64).contains(&field) {
            return None;
        }
        let wire = match kind {
            0 => Wire::Varint(varint(&mut bytes)?),
            1 => Wire::Fixed(take(&mut bytes, 8)?.to_vec()),
            5 => Wire::Fixed(take(&mut bytes, 4)?.to_vec()),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let inner = take(&mut bytes, length)?;
                match parse(inner, depth + 1) {
                    Some(m) if depth < 24 && inner.len() < 4096 && !m.is_empty() => {
                        Wire::Message(m)
                    }
                    _ => Wire::Bytes(inner.to_vec()),
                }
            }
            _ => return None,
        };
        fields.push((field, wire));
    }
    Some(fields)
}

fn take<'a>(bytes: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (front, rest) = bytes.split_at_checked(n)?;
    *bytes = rest;
    Some(front)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in 0..10 {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << (7 * shift);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn put(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The bytes of a message.
pub fn encode(fields: &[(u64, Wire)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (field, wire) in fields {
        let key = field << 3;
        match wire {
            Wire::Varint(v) => {
                put(key, &mut out);
                put(*v, &mut out);
            }
            Wire::Fixed(b) => {
                put(key | if b.len() == 8 { 1 } else { 5 }, &mut out);
                out.extend(b);
            }
            Wire::Bytes(b) => {
                put(key | 2, &mut out);
                put(b.len() as u64, &mut out);
                out.extend(b);
            }
            Wire::Message(m) => {
                let inner = encode(m);
                put(key | 2, &mut out);
                put(inner.len() as u64, &mut out);
                out.extend(inner);
            }
        }
    }
    out
}

/// The number of fields, nested ones included.
pub fn count(fields: &[(u64, Wire)]) -> usize {
    fields
        .iter()
        .map(|(_, w)| match w {
            Wire::Message(m) => 1 + count(m),
            _ => 1,
        })
        .sum()
}

/// Finds field `n` in the order of the file and hands its siblings and its place to `change`.
pub fn change(
    fields: &mut Vec<(u64, Wire)>,
    n: &mut usize,
    change_one: &mut dyn FnMut(&mut Fields, usize),
) -> bool {
    let mut i = 0;
    while i < fields.len() {
        if *n == 0 {
            change_one(fields, i);
            return true;
        }
        *n -= 1;
        if let Wire::Message(m) = &mut fields[i].1
            && change(m, n, change_one)
        {
            return true;
        }
        i += 1;
    }
    false
}
