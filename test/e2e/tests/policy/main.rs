//! NetworkPolicy, packet by packet: truth tables of pods, nodes and a host outside, over TCP, UDP and SCTP, in both families, directly and
//! through Services. What must hold is what the evaluator (`ovenbird-verdict`) says; nothing else does.

mod admin;
mod first;
mod restarts;
mod table;
mod tables;
mod updates;
mod watch;
mod world;
