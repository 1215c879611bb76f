//! Turning bytes: a square of sixteen by sixteen in every sixteen bytes of vectors.

/// Turns sixteen vectors of bytes, sixteen by sixteen: four times, vectors are dealt out like a pack
/// of cards. All is written out, so that it stays in registers.
macro_rules! turn {
    ($i:ident => $load:expr, $low:path, $high:path, $x:ident => $store:expr) => {{
        let x = super::turn!(@each $i => $load; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        let x = super::turn!(@deal x, $low, $high; 0 8 1 9 2 10 3 11 4 12 5 13 6 14 7 15);
        let x = super::turn!(@deal x, $low, $high; 0 8 1 9 2 10 3 11 4 12 5 13 6 14 7 15);
        let x = super::turn!(@deal x, $low, $high; 0 8 1 9 2 10 3 11 4 12 5 13 6 14 7 15);
        let x = super::turn!(@deal x, $low, $high; 0 8 1 9 2 10 3 11 4 12 5 13 6 14 7 15);
        super::turn!(@store x, $i, $x => $store; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    }};
    (@each $i:ident => $load:expr; $($n:literal)*) => {
        [$({ let $i: usize = $n; $load }),*]
    };
    (@deal $x:ident, $low:path, $high:path; $($a:literal $b:literal)*) => {
        super::turn!(@pairs $x, $low, $high; $(($a, $b))*)
    };
    (@pairs $x:ident, $low:path, $high:path;
        $p:tt $q:tt $r:tt $s:tt $t:tt $u:tt $v:tt $w:tt) => {
        [
            super::turn!(@one $x, $low, $p), super::turn!(@one $x, $high, $p),
            super::turn!(@one $x, $low, $q), super::turn!(@one $x, $high, $q),
            super::turn!(@one $x, $low, $r), super::turn!(@one $x, $high, $r),
            super::turn!(@one $x, $low, $s), super::turn!(@one $x, $high, $s),
            super::turn!(@one $x, $low, $t), super::turn!(@one $x, $high, $t),
            super::turn!(@one $x, $low, $u), super::turn!(@one $x, $high, $u),
            super::turn!(@one $x, $low, $v), super::turn!(@one $x, $high, $v),
            super::turn!(@one $x, $low, $w), super::turn!(@one $x, $high, $w),
        ]
    };
    (@one $x:ident, $f:path, ($a:literal, $b:literal)) => {
        $f($x[$a], $x[$b])
    };
    (@store $all:ident, $i:ident, $x:ident => $store:expr; $($n:literal)*) => {
        $({ let ($i, $x): (usize, _) = ($n, $all[$n]); $store })*
    };
}
pub(crate) use turn;
