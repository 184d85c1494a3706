//! Commands from a seed.

use std::time::{SystemTime, UNIX_EPOCH};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

type Command = Vec<Vec<u8>>;

/// Few keys, so that commands meet each other's leftovers.
const KEYS: [&[u8]; 10] = [
    b"a",
    b"b",
    b"c",
    b"key:1",
    b"key:2",
    b"{tag}x",
    b"{tag}y",
    b"",
    b"\x00\xff\r\n",
    b"long-key-long-key-long-key-long-key",
];

const VALUES: [&[u8]; 40] = [
    b"",
    b"0",
    b"1",
    b"-1",
    b"7",
    b"10",
    b"12345",
    b"9999",
    b"10000",
    b"-0",
    b"007",
    b"+5",
    b" 5",
    b"5 ",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"9223372036854775808",
    b"99999999999999999999",
    b"12345678901234567890",
    b"3.14",
    b"-2.5e3",
    b"1e3",
    b"inf",
    b"nan",
    b"0x1p3",
    b".5",
    b"5.",
    b"hello",
    b"hello world",
    b"OK",
    b"nx",
    b"\x00",
    b"\r\n",
    b"\xff\xfe binary",
    b"embstr-of-exactly-forty-four-bytes-1234567890",
    b"embstr-of-exactly-forty-five-bytes-12345678901",
    b"abcdefghijklmnopqrstuvwxyz",
    b"aaaaaaaaaa",
    b"abababab",
    b"1 ",
];

const INTEGERS: [&[u8]; 22] = [
    b"0",
    b"1",
    b"-1",
    b"2",
    b"5",
    b"-5",
    b"10",
    b"100",
    b"1000",
    b"-100",
    b"3",
    b"4",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"9223372036854775800",
    b"9223372036854775808",
    b"4611686018427387904",
    b"x",
    b"",
    b"1.5",
    b"01",
    b"-0",
];

/// The largest allowed offset is left out: half a gigabyte a time.
const OFFSETS: [&[u8]; 10] =
    [b"0", b"1", b"3", b"10", b"50", b"200", b"536870912", b"-1", b"9223372036854775807", b"x"];

/// Seconds or milliseconds from now; far apart, and far from any absolute deadline below.
const RELATIVE: [&[u8]; 9] = [
    b"1000000000",
    b"2000000000",
    b"0",
    b"-1",
    b"9223372036854775807",
    b"9223372036854775",
    b"-9223372036854775808",
    b"x",
    b"",
];

pub(crate) struct Generator {
    random: SmallRng,
    /// Absolute deadlines, in seconds; the rest of the test fits between any two.
    absolute_s: [i64; 8],
}

impl Generator {
    pub(crate) fn new(seed: u64) -> Generator {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        let later = |days: i64| now_s + days * 86_400;
        Generator {
            random: SmallRng::seed_from_u64(seed),
            absolute_s: [later(1), later(2), later(30), later(400), later(-1), 1, 0, -1],
        }
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.random.random_range(0..from.len())]
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_ratio(percent, 100)
    }

    fn key(&mut self) -> Vec<u8> {
        self.pick(&KEYS).to_vec()
    }

    fn value(&mut self) -> Vec<u8> {
        match self.random.random_range(0..20) {
            0 => vec![b'v'; self.random.random_range(0..300)],
            1..=3 => self.random.random_range(-20..20).to_string().into_bytes(),
            _ => self.pick(&VALUES).to_vec(),
        }
    }

    fn integer(&mut self) -> Vec<u8> {
        if self.chance(60) {
            return self.random.random_range(-100..100).to_string().into_bytes();
        }
        self.pick(&INTEGERS).to_vec()
    }

    fn absolute(&mut self, seconds: bool) -> Vec<u8> {
        if self.chance(5) {
            return self.pick(&INTEGERS).to_vec();
        }
        let moment_s = self.pick(&self.absolute_s.clone());
        (if seconds { moment_s } else { moment_s * 1000 }).to_string().into_bytes()
    }

    fn relative(&mut self) -> Vec<u8> {
        self.pick(&RELATIVE).to_vec()
    }

    fn keys(&mut self, most: usize) -> Vec<Vec<u8>> {
        (0..self.random.random_range(1..=most)).map(|_| self.key()).collect()
    }

    /// `EX 10`, `PXAT …`
    fn deadline_option(&mut self) -> Vec<Vec<u8>> {
        match self.random.random_range(0..4) {
            0 => vec![b"EX".to_vec(), self.relative()],
            1 => vec![b"px".to_vec(), self.relative()],
            2 => vec![b"EXAT".to_vec(), self.absolute(true)],
            _ => vec![b"PXAT".to_vec(), self.absolute(false)],
        }
    }

    fn set_options(&mut self) -> Vec<Vec<u8>> {
        let mut options = Vec::new();
        if self.chance(30) {
            options.push(self.pick(&[&b"NX"[..], b"XX", b"nx", b"xX"]).to_vec());
        }
        if self.chance(25) {
            options.push(b"GET".to_vec());
        }
        match self.random.random_range(0..10) {
            0..=2 => options.extend(self.deadline_option()),
            3 => options.push(b"KEEPTTL".to_vec()),
            _ => {}
        }
        options
    }

    /// One data command, arguments of the right kind but not always sensible.
    pub(crate) fn data_command(&mut self) -> Command {
        let key = self.key();
        let name = |name: &str| name.as_bytes().to_vec();
        match self.random.random_range(0..64) {
            0..=5 => {
                let mut command = vec![name("SET"), key, self.value()];
                command.extend(self.set_options());
                command
            }
            6..=9 => vec![name("GET"), key],
            10 => vec![name("SETNX"), key, self.value()],
            11 => vec![name("SETEX"), key, self.relative(), self.value()],
            12 => vec![name("PSETEX"), key, self.relative(), self.value()],
            13 => vec![name("GETSET"), key, self.value()],
            14 => vec![name("GETDEL"), key],
            15 => {
                let mut command = vec![name("GETEX"), key];
                match self.random.random_range(0..4) {
                    0 => {}
                    1 => command.push(b"PERSIST".to_vec()),
                    _ => command.extend(self.deadline_option()),
                }
                command
            }
            16 => [vec![name("MGET")], self.keys(4)].concat(),
            17 => {
                let mut command = vec![name(self.pick(&["MSET", "MSETNX"]))];
                for key in self.keys(4) {
                    command.push(key);
                    command.push(self.value());
                }
                command
            }
            18..=20 => vec![name("APPEND"), key, self.value()],
            21 => vec![name("STRLEN"), key],
            22 | 23 => {
                vec![name(self.pick(&["GETRANGE", "SUBSTR"])), key, self.integer(), self.integer()]
            }
            24 | 25 => vec![name("SETRANGE"), key, self.pick(&OFFSETS).to_vec(), self.value()],
            26 => vec![name("INCR"), key],
            27 => vec![name("DECR"), key],
            28 | 29 => vec![name("INCRBY"), key, self.integer()],
            30 => vec![name("DECRBY"), key, self.integer()],
            31 => vec![name("INCRBYFLOAT"), key, self.value()],
            32 | 33 => [vec![name(self.pick(&["DEL", "UNLINK"]))], self.keys(3)].concat(),
            34 => [vec![name(self.pick(&["EXISTS", "TOUCH"]))], self.keys(4)].concat(),
            35 => vec![name("TYPE"), key],
            36 => vec![
                name("KEYS"),
                self.pick(&[&b"*"[..], b"key:*", b"?", b"[ab]", b"{tag}*"]).to_vec(),
            ],
            37 => {
                let mut command = vec![name("SCAN"), name("0"), name("COUNT"), name("100000")];
                if self.chance(40) {
                    command.extend([name("MATCH"), name("*a*")]);
                }
                if self.chance(30) {
                    command.extend([name("TYPE"), name(self.pick(&["string", "hash", "nosuch"]))]);
                }
                command
            }
            38 => vec![name("RANDOMKEY")],
            39 | 40 => vec![name("RENAME"), key, self.key()],
            41 => vec![name("RENAMENX"), key, self.key()],
            42 | 43 => {
                let mut command = vec![name("COPY"), key, self.key()];
                if self.chance(50) {
                    command.push(name("REPLACE"));
                }
                if self.chance(10) {
                    command.extend([name("DB"), name(self.pick(&["0", "x", "99", "99999999999"]))]);
                }
                command
            }
            44..=46 => {
                let command = self.pick(&["EXPIREAT", "PEXPIREAT"]);
                let mut command = vec![name(command), key, self.absolute(command == "EXPIREAT")];
                for option in ["NX", "XX", "GT", "LT"] {
                    if self.chance(15) {
                        command.push(name(option));
                    }
                }
                command
            }
            47 | 48 => {
                // Not GT or LT: two relative deadlines given at the same moment differ by chance.
                let mut command =
                    vec![name(self.pick(&["EXPIRE", "PEXPIRE"])), key, self.relative()];
                if self.chance(20) {
                    command.push(name(self.pick(&["NX", "XX", "nx"])));
                }
                command
            }
            49 | 50 => vec![name(self.pick(&["TTL", "PTTL"])), key],
            51 | 52 => vec![name(self.pick(&["EXPIRETIME", "PEXPIRETIME"])), key],
            53 => vec![name("PERSIST"), key],
            54..=57 => vec![name("OBJECT"), name("ENCODING"), key],
            58 if self.chance(10) => vec![name(self.pick(&["FLUSHALL", "FLUSHDB"]))],
            58 => vec![name("FLUSHALL"), name("x")],
            59 => {
                let mut command = vec![name("LCS"), key, self.key()];
                if self.chance(60) {
                    command.push(name(self.pick(&["LEN", "IDX", "WITHMATCHLEN"])));
                }
                command
            }
            _ => vec![name("GET"), key],
        }
    }

    /// A data command with something wrong: words missing, added, doubled, swapped or replaced.
    pub(crate) fn malformed_command(&mut self) -> Command {
        const WORDS: [&[u8]; 26] = [
            b"NX",
            b"XX",
            b"GET",
            b"EX",
            b"PX",
            b"EXAT",
            b"PXAT",
            b"KEEPTTL",
            b"PERSIST",
            b"GT",
            b"LT",
            b"REPLACE",
            b"DB",
            b"COUNT",
            b"MATCH",
            b"TYPE",
            b"LEN",
            b"IDX",
            b"MINMATCHLEN",
            b"WITHMATCHLEN",
            b"ASYNC",
            b"SYNC",
            b"10",
            b"-1",
            b"",
            b"junk",
        ];
        let mut command = self.data_command();
        for _ in 0..self.random.random_range(1..=3) {
            let place = self.random.random_range(1..=command.len());
            match self.random.random_range(0..6) {
                0 if place < command.len() => drop(command.remove(place)),
                1 if place < command.len() => command[place] = self.pick(&WORDS).to_vec(),
                2 if place < command.len() => command.swap(place, 1),
                3 => command.insert(place, self.pick(&WORDS).to_vec()),
                4 => {
                    let word = self.pick(&WORDS);
                    command.push(word.to_vec());
                }
                _ => command.push(self.integer()),
            }
        }
        if self.is_open(&command) { self.malformed_command() } else { command }
    }

    /// A block that ends with `EXEC` or `DISCARD`. It watches only keys that share no bucket of our
    /// table of last touches with another one.
    pub(crate) fn transaction(&mut self) -> Vec<Command> {
        let word = |word: &str| vec![word.as_bytes().to_vec()];
        let mut block = Vec::new();
        if self.chance(50) {
            let mut watch = word("WATCH");
            watch.extend(
                (0..self.random.random_range(1..3)).map(|_| self.pick(&KEYS[..6]).to_vec()),
            );
            block.push(watch);
            for _ in 0..self.random.random_range(0..2) {
                let command = self.exact_command();
                block.push(command);
            }
        }
        if self.chance(5) {
            block.push(word("UNWATCH"));
        }
        if self.chance(97) {
            block.push(word("MULTI"));
        }
        for _ in 0..self.random.random_range(0..6) {
            let command = match self.random.random_range(0..20) {
                0 => self.malformed_exact_command(),
                1 => word(self.pick(&["PING", "MULTI", "UNWATCH"])),
                2 => [word("WATCH"), word("a")].concat(),
                _ => self.exact_command(),
            };
            block.push(command);
        }
        block.push(word(if self.chance(90) { "EXEC" } else { "DISCARD" }));
        block
    }

    /// A data command whose answer leaves nothing open.
    fn exact_command(&mut self) -> Command {
        loop {
            let command = self.data_command();
            if is_exact(&command) {
                return command;
            }
        }
    }

    fn malformed_exact_command(&mut self) -> Command {
        loop {
            let command = self.malformed_command();
            if is_exact(&command) {
                return command;
            }
        }
    }

    /// Whether Redis may answer differently each time, or with another database at hand.
    fn is_open(&self, command: &[Vec<u8>]) -> bool {
        let is = |word: &[u8], name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        let name = &command[0];
        let has = |option: &str| command.iter().any(|word| is(word, option));
        // Short relative deadlines run out at different moments.
        let short = |word: &Vec<u8>| {
            let number = std::str::from_utf8(word).ok().and_then(|text| text.parse::<i64>().ok());
            number.is_some_and(|number| (1..1_000_000).contains(&number))
        };
        let deadlines = ["SET", "SETEX", "PSETEX", "GETEX", "EXPIRE", "PEXPIRE"];
        (deadlines.iter().any(|command| is(name, command)) && command[1..].iter().any(short))
            || (is(name, "COPY") && has("DB"))
            || ((is(name, "EXPIRE") || is(name, "PEXPIRE")) && (has("GT") || has("LT")))
            // Any cursor but 0 is ours alone.
            || (is(name, "SCAN") && (command.len() < 4 || command[1] != b"0" || !is(&command[2], "COUNT") || command[3] != b"100000"))
            || is(name, "RANDOMKEY")
    }

    pub(crate) fn float_command(&mut self) -> Command {
        let key = self.pick(&KEYS[..3]).to_vec();
        if self.chance(40) {
            let value = self.float();
            return vec![b"SET".to_vec(), key, value];
        }
        let by = self.float();
        vec![b"INCRBYFLOAT".to_vec(), key, by]
    }

    fn float(&mut self) -> Vec<u8> {
        let digits = |generator: &mut Generator, most: usize| {
            let count = generator.random.random_range(0..=most);
            (0..count)
                .map(|_| char::from(generator.random.random_range(b'0'..=b'9')))
                .collect::<String>()
        };
        let sign = self.pick(&["", "", "-", "+"]);
        let text = match self.random.random_range(0..12) {
            0 => format!("{sign}{}", digits(self, 40)),
            1..=4 => format!("{sign}{}.{}", digits(self, 6), digits(self, 6)),
            5 | 6 => format!("{sign}{}.{}", digits(self, 25), digits(self, 25)),
            7 => format!("{sign}{}e{}", digits(self, 5), self.random.random_range(-60..60)),
            8 => format!(
                "{sign}{}.{}E{}",
                digits(self, 5),
                digits(self, 30),
                self.random.random_range(-5100..5100)
            ),
            9 => format!(
                "{sign}0x{:x}.{:x}p{}",
                self.random.random::<u64>(),
                self.random.random::<u32>(),
                self.random.random_range(-200..200)
            ),
            10 => format!(
                "{sign}{}",
                self.pick(&[
                    "inf",
                    "Infinity",
                    "nan",
                    "0",
                    "-0",
                    "1e",
                    "0x",
                    ".",
                    "1e4932",
                    "1.18973149535723176502e+4932",
                    "3.6e-4951",
                    "1e-4951",
                    "0e99999999",
                    "1_0",
                    "1,5"
                ])
            ),
            _ => format!("{sign}{}", f64::from_bits(self.random.random::<u64>())),
        };
        text.into_bytes()
    }

    pub(crate) fn pattern_command(&mut self) -> Command {
        const BYTES: &[u8] = b"ab*?[]^-\\";
        let word = |generator: &mut Generator, from: &[u8], most: usize| {
            let count = generator.random.random_range(0..=most);
            (0..count)
                .map(|_| from[generator.random.random_range(0..from.len())])
                .collect::<Vec<u8>>()
        };
        match self.random.random_range(0..10) {
            0..=2 => vec![b"SET".to_vec(), word(self, BYTES, 5), b"v".to_vec()],
            3 => vec![b"DEL".to_vec(), word(self, BYTES, 3)],
            4 => {
                let pattern = word(self, BYTES, 6);
                let scan = [&b"SCAN"[..], b"0", b"COUNT", b"100000", b"MATCH"];
                scan.into_iter().map(<[u8]>::to_vec).chain([pattern]).collect()
            }
            _ => vec![b"KEYS".to_vec(), word(self, BYTES, 8)],
        }
    }

    pub(crate) fn subsequence_command(&mut self) -> Command {
        if self.chance(40) {
            let count = self.random.random_range(0..60);
            let letters = self.random.random_range(1..5u8);
            let value = (0..count).map(|_| b'a' + self.random.random_range(0..letters)).collect();
            return vec![b"SET".to_vec(), self.pick(&KEYS[..3]).to_vec(), value];
        }
        let mut command =
            vec![b"LCS".to_vec(), self.pick(&KEYS[..3]).to_vec(), self.pick(&KEYS[..3]).to_vec()];
        for option in [&b"LEN"[..], b"IDX", b"WITHMATCHLEN"] {
            if self.chance(40) {
                command.push(option.to_vec());
            }
        }
        if self.chance(30) {
            command.extend([b"MINMATCHLEN".to_vec(), self.integer()]);
        }
        command
    }
}

/// Whether it is neither an answer in time nor one in an order of its own, nor refused in a transaction.
fn is_exact(command: &Command) -> bool {
    let open = ["KEYS", "SCAN", "RANDOMKEY", "TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME", "LCS"];
    !open.iter().any(|name| command[0].eq_ignore_ascii_case(name.as_bytes()))
}
