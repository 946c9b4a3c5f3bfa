//! Bringing over what others change while a copy is made, until so little is left that they can wait for it.
//!
//! As long as more is brought over than comes, nobody is slowed down. Else commits wait for a slice at a time.
//! Either way what has come is looked at after each piece: the source remembers its newest changes only, and
//! many more may come while all that was known before is brought over.

use std::time::{Duration, Instant};

use super::copy::Copier;
use super::gate::Gate;
use super::{MigrationError, Phase};

/// The gate is closed for the last time when no more than so many changes are to be brought over.
const FEW_CHANGES: usize = 64;

/// Where more comes than is brought over, commits wait while so many changes are brought over, again and
/// again. From there on as many as take this long, and always more than came since.
const FIRST_SLICE: usize = 64;
const SLICE_TIME: Duration = Duration::from_millis(250);
/// After so many slices that have left no less to do than there ever was the migration is given up.
const MAX_IN_VAIN: u32 = 100;

/// Brings changes over until few are left. As long as each round leaves less than half of what there
/// was, nobody is slowed down.
pub(super) async fn catch_up(gate: &Gate, copier: &mut Copier<'_>) -> Result<(), MigrationError> {
    loop {
        let before = copier.behind();
        copier.enter(Phase::CatchingUp);
        let mut taken = 0;
        // Not to the end of a round that only falls further behind.
        while taken < before && copier.behind() <= before {
            taken += copier.settle_piece().await?;
            copier.look().await?;
        }
        match copier.behind() {
            0..=FEW_CHANGES => return Ok(()),
            behind if behind > before / 2 => return catch_up_in_slices(gate, copier).await,
            _ => {}
        }
    }
}

/// The same where changes come faster than they can be brought over: commits wait for a slice at a time.
async fn catch_up_in_slices(gate: &Gate, copier: &mut Copier<'_>) -> Result<(), MigrationError> {
    let mut slice = FIRST_SLICE;
    let (mut least, mut in_vain) = (copier.behind(), 0);
    while copier.behind() > FEW_CHANGES {
        copier.enter(Phase::CatchingUp);
        let (settled, took) = {
            let closed = gate.close().await?;
            let start = Instant::now();
            (closed.in_time(copier.settle_some(slice)).await?, start.elapsed())
        };
        let left = copier.behind();
        copier.look().await?;
        let came = copier.behind() - left;
        let in_slice_time = slice as f64 * SLICE_TIME.as_secs_f64() / took.as_secs_f64().max(1e-6);
        // Large records count for more than one, so that a slice holds fewer of them.
        let each = if left > 0 { slice.div_ceil(settled.max(1)) } else { 1 };
        // A measurement of few is not worth much, so it grows by and by.
        slice = (in_slice_time as usize).clamp(slice / 2, slice * 2).max(2 * came * each).max(1);
        if copier.behind() < least {
            (least, in_vain) = (copier.behind(), 0);
        } else {
            in_vain += 1;
        }
        if in_vain == MAX_IN_VAIN {
            return Err(MigrationError::Outrun);
        }
    }
    Ok(())
}
