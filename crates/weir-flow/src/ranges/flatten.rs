//! Nested blocks made flat: for each stretch of addresses, the value that holds there.

/// A block of addresses, as numbers, and its value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) first: u128,
    pub(super) last: u128,
    pub(super) value: u32,
}

/// From this address on, this value holds, up to the next step. The first step is at 0.
pub(super) type Step = (u128, Option<u32>);

/// Makes blocks flat; of two blocks around an address the smaller holds, of equal blocks the later.
/// Blocks either nest or are disjoint, as prefixes do. `end` is the family's last address.
pub(super) fn flatten(mut pieces: Vec<Piece>, end: u128) -> Vec<Step> {
    // Stable: equal blocks stay in their order. The larger of two that begin together comes first.
    pieces.sort_by_key(|piece| (piece.first, end - piece.last));
    let mut steps = vec![(0, None)];
    let mut around: Vec<Piece> = Vec::new();
    for piece in pieces {
        leave(&mut around, &mut steps, end, |open| open.last < piece.first);
        step(&mut steps, piece.first, Some(piece.value));
        around.push(piece);
    }
    leave(&mut around, &mut steps, end, |_| true);
    steps
}

/// Ends the innermost blocks as long as they are over.
fn leave(around: &mut Vec<Piece>, steps: &mut Vec<Step>, end: u128, over: impl Fn(&Piece) -> bool) {
    while let Some(piece) = around.pop_if(|piece| over(piece)) {
        if piece.last < end {
            step(steps, piece.last + 1, around.last().map(|outer| outer.value));
        }
    }
}

/// Adds a step at or behind the last one, and none where nothing changes.
fn step(steps: &mut Vec<Step>, at: u128, value: Option<u32>) {
    steps.pop_if(|(last, _)| *last == at);
    if steps.last().is_none_or(|(_, before)| *before != value) {
        steps.push((at, value));
    }
}

/// Lays one function of steps over another.
pub(super) fn overlay(
    below: &[Step],
    above: &[Step],
    merge: &mut impl FnMut(Option<u32>, Option<u32>) -> Option<u32>,
) -> Vec<Step> {
    let mut steps = Vec::with_capacity(below.len() + above.len());
    let (mut i, mut j) = (0, 0);
    loop {
        let at = below[i].0.max(above[j].0);
        step(&mut steps, at, merge(below[i].1, above[j].1));
        let next = [below.get(i + 1), above.get(j + 1)];
        let Some(nearest) = next.into_iter().flatten().map(|(at, _)| *at).min() else {
            return steps;
        };
        i += usize::from(next[0].is_some_and(|(at, _)| *at == nearest));
        j += usize::from(next[1].is_some_and(|(at, _)| *at == nearest));
    }
}

/// A function of steps, ready to be asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Steps<K> {
    starts: Box<[K]>,
    /// `NOTHING`, or an index.
    values: Box<[u32]>,
}

const NOTHING: u32 = u32::MAX;

impl<K: Copy + Ord> Steps<K> {
    fn new(steps: &[Step], start: impl Fn(u128) -> K) -> Self {
        Self {
            starts: steps.iter().map(|(at, _)| start(*at)).collect(),
            values: steps.iter().map(|(_, value)| value.unwrap_or(NOTHING)).collect(),
        }
    }

    /// What holds at this address, by a search among the steps from `from` to `to`.
    fn at(&self, address: K, from: usize, to: usize) -> Option<u32> {
        let among = self.starts.get(from..to)?;
        let behind = from + among.partition_point(|start| *start <= address);
        self.values.get(behind.checked_sub(1)?).copied().filter(|value| *value != NOTHING)
    }
}

/// What holds where among the addresses of IPv4.
#[derive(Clone, Debug, Default)]
pub(super) struct StepsV4 {
    steps: Steps<u32>,
    /// For each /16, how many steps begin at or before its first address; and all of them at the
    /// end. Searching within one /16 is about twice as quick as among all.
    index: Box<[u32]>,
}

impl StepsV4 {
    pub(super) fn new(steps: &[Step]) -> Self {
        let start = |at| u32::try_from(at).expect("steps of IPv4 lie within 32 bits");
        let steps = Steps::new(steps, start);
        let count = |count| u32::try_from(count).expect("fewer steps than addresses");
        let before = |block: u32| steps.starts.partition_point(|start| *start <= block << 16);
        let blocks = (0..=u32::from(u16::MAX)).map(|block| count(before(block)));
        let index = blocks.chain([count(steps.starts.len())]).collect();
        Self { steps, index }
    }

    pub(super) fn at(&self, address: u32) -> Option<u32> {
        let block = (address >> 16) as usize;
        let (from, to) = (*self.index.get(block)?, *self.index.get(block + 1)?);
        self.steps.at(address, from as usize, to as usize)
    }
}

/// What holds where among the addresses of IPv6.
#[derive(Clone, Debug, Default)]
pub(super) struct StepsV6(Steps<u128>);

impl StepsV6 {
    pub(super) fn new(steps: &[Step]) -> Self {
        Self(Steps::new(steps, |at| at))
    }

    pub(super) fn at(&self, address: u128) -> Option<u32> {
        self.0.at(address, 0, self.0.starts.len())
    }
}
