//! The list of boards.

use super::{Board, Compiler, Core, Machine, Memory, Program};
use crate::kernels::Flavour;

/// Every board: Cortex-M by its number, then others, this machine last.
pub static BOARDS: &[&Board] = &[
    &CORTEX_M0PLUS,
    &CORTEX_M3,
    &CORTEX_M4,
    &CORTEX_M7,
    &CORTEX_M33,
    &CORTEX_M55,
    &RV32,
    &HOST,
];

static ARM_GCC: Program = Program {
    names: &["arm-none-eabi-gcc"],
    linker: None,
    apt: "gcc-arm-none-eabi",
    elsewhere: "Fedora: arm-none-eabi-gcc-cs; Arch: arm-none-eabi-gcc; macOS: brew install --cask \
                gcc-arm-embedded; others: the Arm GNU Toolchain of developer.arm.com",
};

static RISCV_GCC: Program = Program {
    names: &[
        "riscv64-unknown-elf-gcc",
        "riscv32-unknown-elf-gcc",
        "riscv-none-elf-gcc",
    ],
    linker: None,
    apt: "gcc-riscv64-unknown-elf",
    elsewhere: "Arch: riscv64-elf-gcc; macOS: brew install riscv64-elf-gcc; others: the xPack \
                riscv-none-elf-gcc",
};

static CLANG: Program = Program {
    names: &[
        "clang-22", "clang-21", "clang-20", "clang-19", "clang-18", "clang",
    ],
    linker: Some("ld.lld"),
    apt: "clang-22 lld-22",
    elsewhere: "Debian and Ubuntu without clang-22: clang lld; Fedora and Arch: clang lld; macOS: brew \
                install llvm lld",
};

static HOST_CC: Program = Program {
    names: &["cc", "gcc", "clang"],
    linker: None,
    apt: "gcc libc6-dev",
    elsewhere: "Fedora and Arch: gcc; macOS: xcode-select --install",
};

static HOST_CLANG: Program = Program {
    names: &[
        "clang", "clang-22", "clang-21", "clang-20", "clang-19", "clang-18",
    ],
    linker: None,
    apt: "clang libc6-dev",
    elsewhere: "Fedora and Arch: clang; macOS: xcode-select --install",
};

static QEMU_ARM: Program = Program {
    names: &["qemu-system-arm"],
    linker: None,
    apt: "qemu-system-arm",
    elsewhere: "Fedora: qemu-system-arm-core; Arch: qemu-system-arm; macOS: brew install qemu",
};

static QEMU_RISCV: Program = Program {
    names: &["qemu-system-riscv32"],
    linker: None,
    apt: "qemu-system-misc",
    elsewhere: "Debian 13 and later: qemu-system-riscv; Fedora: qemu-system-riscv-core; Arch: \
                qemu-system-riscv; macOS: brew install qemu",
};

/// What compiles the plugin of QEMU, which runs on this machine.
pub static PLUGIN_COMPILER: &Program = &HOST_CC;

const PORTABLE: &[Flavour] = &[Flavour::C];
const DSP: &[Flavour] = &[Flavour::C, Flavour::Dsp];
const MVE: &[Flavour] = &[Flavour::C, Flavour::Dsp, Flavour::Mve];

const fn memory(origin: u64, bytes: u64) -> Memory {
    Memory { origin, bytes }
}

const fn mps(words: &'static [&'static str], flash: Memory, ram: Memory) -> Machine {
    Machine {
        emulator: &QEMU_ARM,
        words,
        core: Core::CortexM,
        flash,
        ram,
        weights: flash,
    }
}

const fn arm_gcc(flags: &'static [&'static str]) -> Compiler {
    Compiler {
        name: "gcc",
        program: &ARM_GCC,
        // Halves are a type only then.
        target: &["-mfp16-format=ieee"],
        flags,
        arithmetic: None,
    }
}

const fn arm_clang(flags: &'static [&'static str]) -> Compiler {
    Compiler {
        name: "clang",
        program: &CLANG,
        target: &["--target=arm-none-eabi"],
        flags,
        arithmetic: Some(&ARM_GCC),
    }
}

// Memory maps: Application Notes AN385, AN386, AN500, AN505 and AN547 of Arm. MPS2 has more memory than
// microcontrollers have; the SRAM of AN547 is at its secure address.

static CORTEX_M0PLUS: Board = Board {
    name: "cortex-m0plus",
    about: "code for ARMv6-M, on the Cortex-M3 of MPS2 with AN385, which runs it as it is",
    targets: &["cortex-m0plus"],
    flavours: PORTABLE,
    machine: Some(&CORTEX_M0PLUS_MACHINE),
    compilers: &[&CORTEX_M0PLUS_GCC, &CORTEX_M0PLUS_CLANG],
};

static CORTEX_M0PLUS_MACHINE: Machine = mps(
    &["-M", "mps2-an385"],
    memory(0, 4 << 20),
    memory(0x2000_0000, 4 << 20),
);

const CORTEX_M0PLUS_FLAGS: &[&str] = &["-mthumb", "-mcpu=cortex-m0plus", "-mfloat-abi=soft"];

static CORTEX_M0PLUS_GCC: Compiler = arm_gcc(CORTEX_M0PLUS_FLAGS);

static CORTEX_M0PLUS_CLANG: Compiler = arm_clang(CORTEX_M0PLUS_FLAGS);

static CORTEX_M3: Board = Board {
    name: "cortex-m3",
    about: "Cortex-M3, MPS2 with AN385",
    targets: &["cortex-m3"],
    flavours: PORTABLE,
    machine: Some(&CORTEX_M3_MACHINE),
    compilers: &[&CORTEX_M3_GCC, &CORTEX_M3_CLANG],
};

static CORTEX_M3_MACHINE: Machine = mps(
    &["-M", "mps2-an385"],
    memory(0, 4 << 20),
    memory(0x2000_0000, 4 << 20),
);

const CORTEX_M3_FLAGS: &[&str] = &["-mthumb", "-mcpu=cortex-m3", "-mfloat-abi=soft"];

static CORTEX_M3_GCC: Compiler = arm_gcc(CORTEX_M3_FLAGS);

static CORTEX_M3_CLANG: Compiler = arm_clang(CORTEX_M3_FLAGS);

static CORTEX_M4: Board = Board {
    name: "cortex-m4",
    about: "Cortex-M4 with DSP and FPU, MPS2 with AN386",
    targets: &["cortex-m4"],
    flavours: DSP,
    machine: Some(&CORTEX_M4_MACHINE),
    compilers: &[&CORTEX_M4_GCC, &CORTEX_M4_CLANG],
};

static CORTEX_M4_MACHINE: Machine = mps(
    &["-M", "mps2-an386"],
    memory(0, 4 << 20),
    memory(0x2000_0000, 4 << 20),
);

const CORTEX_M4_FLAGS: &[&str] = &[
    "-mthumb",
    "-mcpu=cortex-m4",
    "-mfloat-abi=hard",
    "-mfpu=fpv4-sp-d16",
];

static CORTEX_M4_GCC: Compiler = arm_gcc(CORTEX_M4_FLAGS);

static CORTEX_M4_CLANG: Compiler = arm_clang(CORTEX_M4_FLAGS);

static CORTEX_M7: Board = Board {
    name: "cortex-m7",
    about: "Cortex-M7 with DSP and FPU of 64 bits, MPS2 with AN500",
    targets: &["cortex-m7"],
    flavours: DSP,
    machine: Some(&CORTEX_M7_MACHINE),
    compilers: &[&CORTEX_M7_GCC, &CORTEX_M7_CLANG],
};

static CORTEX_M7_MACHINE: Machine = mps(
    &["-M", "mps2-an500"],
    memory(0, 4 << 20),
    memory(0x2000_0000, 4 << 20),
);

const CORTEX_M7_FLAGS: &[&str] = &[
    "-mthumb",
    "-mcpu=cortex-m7",
    "-mfloat-abi=hard",
    "-mfpu=fpv5-d16",
];

static CORTEX_M7_GCC: Compiler = arm_gcc(CORTEX_M7_FLAGS);

static CORTEX_M7_CLANG: Compiler = arm_clang(CORTEX_M7_FLAGS);

static CORTEX_M33: Board = Board {
    name: "cortex-m33",
    about: "Cortex-M33 with DSP and FPU, MPS2 with AN505",
    targets: &["cortex-m33"],
    flavours: DSP,
    machine: Some(&CORTEX_M33_MACHINE),
    compilers: &[&CORTEX_M33_GCC, &CORTEX_M33_CLANG],
};

static CORTEX_M33_MACHINE: Machine = mps(
    &["-M", "mps2-an505"],
    memory(0x1000_0000, 4 << 20),
    memory(0x3800_0000, 2 << 20),
);

const CORTEX_M33_FLAGS: &[&str] = &[
    "-mthumb",
    "-mcpu=cortex-m33",
    "-mfloat-abi=hard",
    "-mfpu=fpv5-sp-d16",
];

static CORTEX_M33_GCC: Compiler = arm_gcc(CORTEX_M33_FLAGS);

static CORTEX_M33_CLANG: Compiler = arm_clang(CORTEX_M33_FLAGS);

// Of GCC 12, a store of f16 vectors is moved behind a load of what it wrote.
static CORTEX_M55: Board = Board {
    name: "cortex-m55",
    about: "Cortex-M55 with Helium, MPS3 with AN547",
    targets: &["cortex-m55", "cortex-m85"],
    flavours: MVE,
    machine: Some(&CORTEX_M55_MACHINE),
    compilers: &[&CORTEX_M55_CLANG, &CORTEX_M55_GCC],
};

static CORTEX_M55_MACHINE: Machine = Machine {
    weights: memory(0x1100_0000, 2 << 20),
    ..mps(
        &["-M", "mps3-an547"],
        memory(0, 512 << 10),
        memory(0x2000_0000, 512 << 10),
    )
};

const CORTEX_M55_FLAGS: &[&str] = &["-mthumb", "-mcpu=cortex-m55", "-mfloat-abi=hard"];

static CORTEX_M55_GCC: Compiler = arm_gcc(CORTEX_M55_FLAGS);

static CORTEX_M55_CLANG: Compiler = arm_clang(CORTEX_M55_FLAGS);

static RV32: Board = Board {
    name: "rv32",
    about: "RV32IMC without FPU, the machine virt",
    targets: &["rv32imc"],
    flavours: PORTABLE,
    machine: Some(&RV32_MACHINE),
    compilers: &[&RV32_GCC, &RV32_CLANG],
};

static RV32_MACHINE: Machine = Machine {
    emulator: &QEMU_RISCV,
    words: &["-M", "virt", "-cpu", "rv32", "-bios", "none"],
    core: Core::RiscV,
    flash: memory(0x8000_0000, 4 << 20),
    ram: memory(0x8040_0000, 4 << 20),
    weights: memory(0x8000_0000, 4 << 20),
};

const RV32_FLAGS: &[&str] = &["-march=rv32imc", "-mabi=ilp32"];

static RV32_GCC: Compiler = Compiler {
    name: "gcc",
    program: &RISCV_GCC,
    target: &[],
    flags: RV32_FLAGS,
    arithmetic: None,
};

static RV32_CLANG: Compiler = Compiler {
    name: "clang",
    program: &CLANG,
    target: &["--target=riscv32-unknown-elf"],
    flags: RV32_FLAGS,
    arithmetic: Some(&RISCV_GCC),
};

static HOST: Board = Board {
    name: "host",
    about: "this machine, where instructions are not counted",
    targets: &[],
    flavours: PORTABLE,
    machine: None,
    compilers: &[&HOST_GCC, &HOST_CLANG_FLAGS],
};

static HOST_GCC: Compiler = Compiler {
    name: "gcc",
    program: &HOST_CC,
    target: &[],
    flags: &[],
    arithmetic: None,
};

static HOST_CLANG_FLAGS: Compiler = Compiler {
    name: "clang",
    program: &HOST_CLANG,
    target: &[],
    flags: &[],
    arithmetic: None,
};
