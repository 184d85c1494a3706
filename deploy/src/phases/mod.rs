//! The phases of all procedures, one file each: which hosts it is for, and what is done there.

pub(crate) mod catch_up;
pub(crate) mod change;
pub(crate) mod configure;
pub(crate) mod enroll;
pub(crate) mod format;
pub(crate) mod introduce;
pub(crate) mod meet;
pub(crate) mod record;
pub(crate) mod restart;
pub(crate) mod retire;
pub(crate) mod settle;
pub(crate) mod start;
pub(crate) mod stop;
pub(crate) mod stop_former;
pub(crate) mod switch;
pub(crate) mod upload;
pub(crate) mod wipe;
