"""Verilog around an emitted machine, so that Vivado knows its interfaces and it sees a board's memories.

Bus interfaces, clocks, resets and the interrupt are told by `X_INTERFACE` attributes (AMD UG1118, Creating and
Packaging Custom IP; UG994, Designing IP Subsystems Using IP Integrator).
"""

from dataclasses import dataclass

__all__ = ["IRQ_STAGES", "IpInterface", "host_verilog", "ip_interfaces", "ip_verilog"]

IRQ_STAGES = 2
"""Registers that take the interrupt into the host's clock."""

_BURST_BEATS = 16  # of the units' bursts, at most: what AXI3 can say
_OUTSTANDING = 32  # bursts of a unit that are unanswered, at most
_HOST_DATA, _HOST_ID = 512, 4  # bits of the XDMA's master: AMD PG195, DMA/Bridge Subsystem for PCI Express


@dataclass(frozen=True, kw_only=True)
class IpInterface:
    """An AXI interface of the IP.

    Attributes
    ----------
    name : str
    role : str
        "master" or "slave".
    protocol : str
        As Vivado names it: "AXI3", "AXI4" or "AXI4LITE".
    mode : str
        "READ_ONLY" or "READ_WRITE".
    clock : str
        The clock's port.
    address_bits, data_width, id_width : int
    port : int, optional
        Of the machine's memory ports, which one.
    signals : tuple
        (name behind that of the interface, direction, bits of the machine's port) of all.
    """

    name: str
    role: str
    protocol: str
    mode: str
    clock: str
    address_bits: int
    data_width: int
    id_width: int
    port: int | None
    signals: tuple[tuple[str, str, int], ...]

    @property
    def is_lite(self):
        return self.protocol == "AXI4LITE"

    def width(self, signal, bits):
        """Bits of a signal on the outside."""
        if self.role == "master" and signal in ("araddr", "awaddr"):
            return self.address_bits
        return 4 if self.protocol == "AXI3" and signal in ("arlen", "awlen") else bits

    @property
    def parameters(self):
        """As the attribute has them."""
        values = {"XIL_INTERFACENAME": self.name, "PROTOCOL": self.protocol, "READ_WRITE_MODE": self.mode}
        values |= {"DATA_WIDTH": self.data_width, "ADDR_WIDTH": self.address_bits}
        if not self.is_lite:
            values |= {"ID_WIDTH": self.id_width, "SUPPORTS_NARROW_BURST": 0, "MAX_BURST_LENGTH": _BURST_BEATS}
            values["NUM_READ_OUTSTANDING"] = _OUTSTANDING
            if self.mode == "READ_WRITE":
                values["NUM_WRITE_OUTSTANDING"] = _OUTSTANDING
        return ", ".join(f"{key} {value}" for key, value in values.items())


def ip_interfaces(description, memory_map):
    """The AXI interfaces of the IP around a machine, from `edgeaccel.elaborate.describe_machine`."""
    clocks = {domain["name"]: domain["clock"] for domain in description["clock_domains"]}
    is_hbm = memory_map.board.ports.kind == "hbm"
    made = []
    for interface in description["interfaces"]:
        name, prefix = interface["name"], interface["name"] + "_"
        signals = tuple(
            (port["name"].removeprefix(prefix), port["direction"], port["width"])
            for port in description["ports"]
            if port["name"].startswith(prefix)
        )
        widths = {signal: width for signal, _, width in signals}
        number = name.removeprefix("m_axi_")
        port = int(number) if number.isdecimal() else None
        address_bits = memory_map.card_bits
        if interface["role"] == "slave":
            address_bits = interface["address_width"]
        elif port is not None:
            address_bits = memory_map.port_bits
        lite = interface["protocol"] == "AXI4-Lite"
        made.append(
            IpInterface(
                name=name,
                role=interface["role"],
                protocol="AXI4LITE" if lite else "AXI3" if is_hbm and port is not None else "AXI4",
                mode="READ_WRITE" if "write" in interface["channels"] else "READ_ONLY",
                clock=clocks[interface["clock_domain"]],
                address_bits=address_bits,
                data_width=interface["data_width"],
                id_width=widths.get("arid", 0),
                port=port,
                signals=signals,
            )
        )
    return made


def ip_verilog(description, memory_map, leds):
    """Verilog-2005 of the IP, a module that holds the machine; `leds` of the `activity` bits leave it."""
    module = description["module"]
    interfaces = ip_interfaces(description, memory_map)
    ports, connections = [], []
    for domain in description["clock_domains"]:
        clock, reset = domain["clock"], domain["reset"]
        busses = ":".join(each.name for each in interfaces if each.clock == clock)
        ports += [
            (_clock(clock, f"ASSOCIATED_BUSIF {busses}, ASSOCIATED_RESET {reset}"), "input", 1, clock),
            (_reset(reset, "ACTIVE_HIGH"), "input", 1, reset),
        ]
        connections += [(clock, clock), (reset, reset)]
    ports.append((_clock("host_clk"), "input", 1, "host_clk"))
    for interface in interfaces:
        for n, (signal, direction, bits) in enumerate(interface.signals):
            name, width = f"{interface.name}_{signal}", interface.width(signal, bits)
            ports.append((_signal(interface, signal, first=n == 0), direction, width, name))
            connections.append((name, name if width == bits else f"{name}_"))
    irq = 'X_INTERFACE_INFO = "xilinx.com:signal:interrupt:1.0 irq INTERRUPT"'
    irq += ', X_INTERFACE_PARAMETER = "XIL_INTERFACENAME irq, SENSITIVITY LEVEL_HIGH"'
    ports += [(irq, "output", 1, "irq"), (None, "output", leds, "leds")]
    connections += [("irq", "irq_"), ("activity", "activity")]
    return "\n".join(
        [
            f"// {module} as an IP for {memory_map.board.title}.",
            f"// Generated by {description['generator']}.",
            "",
            *_module(f"{module}_ip", ports),
            *_body(description, memory_map, interfaces, leds),
            f"  {module} soc (",
            *_separated(f"    .{port}({value})" for port, value in connections),
            "  );",
            "endmodule",
            "",
        ]
    )


def _body(description, memory_map, interfaces, leds):
    """What stands between the ports of the IP and those of the machine."""
    widths = {port["name"]: port["width"] for port in description["ports"]}
    lines = []
    if any(each.role == "master" and each.port is None for each in interfaces):
        lines += ["", "  // Addresses of the machine become those of the card's memories."]
        lines += [f"  {line}" for line in memory_map.verilog_function("card")]
    lines.append("")
    for interface in interfaces:
        for signal, _, bits in interface.signals:
            name = f"{interface.name}_{signal}"
            if (width := interface.width(signal, bits)) == bits:
                continue
            value = f"{name}_[{width - 1}:0]"
            if signal in ("araddr", "awaddr"):
                is_port = interface.port is not None
                value = memory_map.port_address(interface.port, f"{name}_") if is_port else f"card({name}_)"
            lines += [f"  wire [{bits - 1}:0] {name}_;", f"  assign {name} = {value};"]
    lines += [
        "",
        "  // The interrupt is a level, and slow; the host's clock is another than the machine's.",
        "  wire irq_;",
        f'  (* ASYNC_REG = "TRUE" *) reg [{IRQ_STAGES - 1}:0] irq_stages = {IRQ_STAGES}\'d0;',
        "  always @(posedge host_clk)",
        f"    irq_stages <= {{irq_stages[{IRQ_STAGES - 2}:0], irq_}};",
        f"  assign irq = irq_stages[{IRQ_STAGES - 1}];",
        "",
        "  // " + ", ".join(description["bit_names"]["activity"][:leds]) + ".",
        f"  wire [{widths['activity'] - 1}:0] activity;",
        f"  assign leds = activity[{leds - 1}:0];",
        "",
    ]
    return lines


def host_verilog(description, memory_map):
    """Verilog-2005 of the host's view: an AXI4 interface whose addresses are the machine's, onto the card's."""
    module = f"{description['module']}_host"
    ports = [
        (_clock("clk", "ASSOCIATED_BUSIF s_axi:m_axi, ASSOCIATED_RESET resetn"), "input", 1, "clk"),
        (_reset("resetn", "ACTIVE_LOW"), "input", 1, "resetn"),
    ]
    for side, address_bits in (("s_axi", 64), ("m_axi", memory_map.card_bits)):
        parameters = (
            f"XIL_INTERFACENAME {side}, PROTOCOL AXI4, DATA_WIDTH {_HOST_DATA}, ADDR_WIDTH {address_bits}, ID_WIDTH"
            f" {_HOST_ID}, NUM_READ_OUTSTANDING {_OUTSTANDING}, NUM_WRITE_OUTSTANDING {_OUTSTANDING}"
        )
        for n, (signal, width, is_from_host) in enumerate(_host_signals()):
            attribute = f'X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 {side} {signal.upper()}"'
            if n == 0:
                attribute += f', X_INTERFACE_PARAMETER = "{parameters}"'
            direction = "input" if is_from_host == (side == "s_axi") else "output"
            ports.append((attribute, direction, address_bits if width is None else width, f"{side}_{signal}"))
    assigns = []
    for signal, width, is_from_host in _host_signals():
        if not is_from_host:
            assigns.append(f"  assign s_axi_{signal} = m_axi_{signal};")
        else:
            value = f"card(s_axi_{signal})" if width is None else f"s_axi_{signal}"
            assigns.append(f"  assign m_axi_{signal} = {value};")
    return "\n".join(
        [
            f"// What the host sees of {description['module']}'s memory on {memory_map.board.title}.",
            f"// Generated by {description['generator']}.",
            "",
            *_module(module, ports),
            "",
            *(f"  {line}" for line in memory_map.verilog_function("card")),
            "",
            *assigns,
            "endmodule",
            "",
        ]
    )


def _host_signals():
    """(name, bits or None for an address, whether the host gives it) of all signals of the XDMA's master."""
    address = {"id": _HOST_ID, "addr": None, "len": 8, "size": 3, "burst": 2, "lock": 1, "cache": 4, "prot": 3}
    channels = {
        "aw": address,
        "w": {"data": _HOST_DATA, "strb": _HOST_DATA // 8, "last": 1},
        "b": {"id": _HOST_ID, "resp": 2},
        "ar": address,
        "r": {"id": _HOST_ID, "data": _HOST_DATA, "resp": 2, "last": 1},
    }
    for channel, fields in channels.items():
        for name, width in (fields | {"valid": 1, "ready": 1}).items():
            yield channel + name, width, (channel not in "br") != (name == "ready")


def _module(name, ports):
    """Head of a module with ports: (attributes, direction, bits, name)."""
    lines = []
    for attributes, direction, bits, port in ports:
        kept = f"  (* {attributes} *)\n" if attributes else ""
        lines.append(f"{kept}  {direction} wire {f'[{bits - 1}:0] ' if bits > 1 else ''}{port}")
    return [f"module {name} (", *_separated(lines), ");"]


def _separated(lines):
    *first, last = lines
    return [*(line + "," for line in first), last]


def _clock(name, parameters=None):
    text = f'X_INTERFACE_INFO = "xilinx.com:signal:clock:1.0 {name} CLK"'
    parameters = f"XIL_INTERFACENAME {name}" + (f", {parameters}" if parameters else "")
    return f'{text}, X_INTERFACE_PARAMETER = "{parameters}"'


def _reset(name, polarity):
    text = f'X_INTERFACE_INFO = "xilinx.com:signal:reset:1.0 {name} RST"'
    return f'{text}, X_INTERFACE_PARAMETER = "XIL_INTERFACENAME {name}, POLARITY {polarity}"'


def _signal(interface, signal, *, first):
    text = f'X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 {interface.name} {signal.upper()}"'
    return f'{text}, X_INTERFACE_PARAMETER = "{interface.parameters}"' if first else text
