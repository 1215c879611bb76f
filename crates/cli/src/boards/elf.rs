//! What is in an object file or a program in ELF: its sections and its symbols.

/// A file that was read.
pub struct Elf {
    /// Sections, in the order of the file.
    pub sections: Vec<Section>,
    /// Symbols with a name.
    pub symbols: Vec<Symbol>,
}

/// A section.
pub struct Section {
    /// Its name.
    pub name: String,
    /// How many bytes it takes.
    pub bytes: u64,
}

/// A symbol.
pub struct Symbol {
    /// Its name.
    pub name: String,
    /// Its address; of a function of Thumb, that of the first instruction.
    pub address: u64,
    /// How many bytes it takes.
    pub bytes: u64,
    /// A function.
    pub is_function: bool,
    /// The place of its section among the sections; 0 where it is defined elsewhere.
    pub section: usize,
}

impl Elf {
    /// Reads little-endian ELF of 32 or 64 bits; `None` where the bytes are none.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let file = File {
            bytes,
            wide: match bytes.get(..6)? {
                [0x7f, b'E', b'L', b'F', 1, 1] => false,
                [0x7f, b'E', b'L', b'F', 2, 1] => true,
                _ => return None,
            },
        };
        let headers = file.headers()?;
        let names = headers.get(file.names()?)?;
        let mut sections = Vec::new();
        let mut symbols = Vec::new();
        for h in &headers {
            sections.push(Section {
                name: file.text(names, h.name)?,
                bytes: h.bytes,
            });
            if h.kind == SYMBOLS {
                let texts = headers.get(usize::try_from(h.link).ok()?)?;
                symbols.extend(file.symbols(h, texts)?);
            }
        }
        Some(Self { sections, symbols })
    }

    /// The symbol of that name that is defined here.
    pub fn find(&self, name: &str) -> Option<&Symbol> {
        self.symbols
            .iter()
            .find(|s| s.section != 0 && s.name == name)
    }

    /// Names that another file has to define.
    pub fn undefined(&self) -> impl Iterator<Item = &str> {
        let missing = self.symbols.iter().filter(|s| s.section == 0);
        missing.map(|s| s.name.as_str())
    }

    /// The function that an address is in, with the name of its section.
    pub fn function(&self, address: u64) -> Option<(&Symbol, &str)> {
        let functions = self
            .symbols
            .iter()
            .filter(|s| s.is_function && s.section != 0);
        let before = functions.filter(|s| s.address <= address);
        let nearest = before.max_by_key(|s| (s.address, s.bytes))?;
        let section = self.sections.get(nearest.section)?;
        Some((nearest, &section.name))
    }
}

const SYMBOLS: u64 = 2;
const ARM: u64 = 40;

struct Header {
    name: u64,
    kind: u64,
    offset: u64,
    bytes: u64,
    link: u64,
}

struct File<'a> {
    bytes: &'a [u8],
    wide: bool,
}

impl File<'_> {
    fn number(&self, at: u64, bytes: usize) -> Option<u64> {
        let at = usize::try_from(at).ok()?;
        let part = self.bytes.get(at..at.checked_add(bytes)?)?;
        let add = |all: u64, &b: &u8| all << 8 | u64::from(b);
        Some(part.iter().rev().fold(0, add))
    }

    /// The field at `narrow` of 32 bits, or at `wide` of 64.
    fn word(&self, base: u64, narrow: u64, wide: u64) -> Option<u64> {
        match self.wide {
            true => self.number(base.checked_add(wide)?, 8),
            false => self.number(base.checked_add(narrow)?, 4),
        }
    }

    fn half(&self, narrow: u64, wide: u64) -> Option<u64> {
        self.number(if self.wide { wide } else { narrow }, 2)
    }

    fn names(&self) -> Option<usize> {
        usize::try_from(self.half(0x32, 0x3e)?).ok()
    }

    fn headers(&self) -> Option<Vec<Header>> {
        let start = self.word(0, 0x20, 0x28)?;
        let (each, count) = (self.half(0x2e, 0x3a)?, self.half(0x30, 0x3c)?);
        let read = |i: u64| {
            let at = start.checked_add(i * each)?;
            Some(Header {
                name: self.number(at, 4)?,
                kind: self.number(at + 4, 4)?,
                offset: self.word(at, 16, 24)?,
                bytes: self.word(at, 20, 32)?,
                link: self.number(at + if self.wide { 40 } else { 24 }, 4)?,
            })
        };
        (0..count).map(read).collect()
    }

    fn text(&self, table: &Header, at: u64) -> Option<String> {
        let start = usize::try_from(table.offset.checked_add(at)?).ok()?;
        let rest = self.bytes.get(start..)?;
        let length = rest.iter().position(|&b| b == 0)?;
        Some(String::from_utf8_lossy(&rest[..length]).into_owned())
    }

    fn symbols(&self, table: &Header, texts: &Header) -> Option<Vec<Symbol>> {
        let is_arm = self.number(0x12, 2)? == ARM;
        let each = if self.wide { 24 } else { 16 };
        let mut symbols = Vec::new();
        for i in 0..table.bytes / each {
            let at = table.offset.checked_add(i * each)?;
            let kind = self.number(at + if self.wide { 4 } else { 12 }, 1)? & 15;
            let home = self.number(at + if self.wide { 6 } else { 14 }, 2)?;
            let name = self.text(texts, self.number(at, 4)?)?;
            let is_function = kind == 2;
            let address = self.word(at, 4, 8)?;
            // Sections and files are symbols too, and so are the marks `$t` and `$d` of Arm.
            if name.is_empty() || kind > 2 || name.starts_with('$') {
                continue;
            }
            symbols.push(Symbol {
                name,
                address: if is_arm && is_function {
                    address & !1
                } else {
                    address
                },
                bytes: self.word(at, 8, 16)?,
                is_function,
                section: usize::try_from(home).ok()?,
            });
        }
        Some(symbols)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_elf_is_not_read_and_a_cut_file_neither() {
        assert!(Elf::read(b"").is_none());
        assert!(Elf::read(b"MZ\0\0\0\0\0\0").is_none());
        assert!(Elf::read(b"\x7fELF\x01\x01\0\0\0\0").is_none());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_test_itself_has_its_functions() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let elf = Elf::read(&bytes).unwrap();
        assert!(
            elf.sections
                .iter()
                .any(|s| s.name == ".text" && s.bytes > 0)
        );
        assert!(
            elf.find("main")
                .is_some_and(|s| s.is_function && s.bytes > 0)
        );
        assert!(elf.undefined().any(|name| name.starts_with("memcpy")));
    }
}
