"""For make_reference_checkpoints.py: models whose matrices are rotated, as QuaRot's and QuIP#'s writers make them, from the description
of their layouts."""
import itertools

import numpy as np
import torch

LAYER = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
         "mlp.down_proj")


def walsh(x, n):
    """The orthonormal Walsh-Hadamard transform of every n columns."""
    shape, d = x.shape, 1
    x = x.reshape(-1, n)
    while d < n:
        x = x.reshape(-1, n // (2 * d), 2, d)
        x = torch.stack([x[:, :, 0] + x[:, :, 1], x[:, :, 0] - x[:, :, 1]], 2).reshape(-1, n)
        d *= 2
    return (x / n ** 0.5).reshape(shape)


def paley(k):
    """The K x K matrix of kernels/hadamard.h: of q + 1 for a prime q = 3 mod 4, or of 2 (q + 1) for one = 1 mod 4."""
    if k == 1:
        return torch.ones(1, 1)
    prime = all((k - 1) % d for d in range(2, k - 1)) and k % 4 == 0
    q = k - 1 if prime else k // 2 - 1
    squares = {i * i % q for i in range(1, q)}
    s = torch.zeros(q + 1, q + 1)
    s[0, 1:], s[1:, 0] = -1 if prime else 1, 1
    for i in range(q):
        for j in range(q):
            s[i + 1, j + 1] = 0 if i == j else 1 if (i - j) % q in squares else -1
    one = torch.eye(q + 1)
    return s + one if prime else torch.cat([torch.cat([s + one, s - one], 1), torch.cat([s - one, -s - one], 1)])


def quarot(weights, config):
    """The state of QuaRot's converter, without the rotation of the residual stream (any orthogonal one will do, so none)."""
    out, values = {}, {}
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    dim = config.get("head_dim") or hidden // heads
    ffn = config["intermediate_size"]
    power = ffn & -ffn
    h12 = paley(12)
    for name, w in weights.items():
        module = name[:-len(".weight")]
        if not module.endswith(LAYER):
            if "layernorm" in name:
                continue
            out[name] = w.half()
            continue
        layer = module.split("self_attn")[0].split("mlp")[0]
        w = w.float()
        if module.endswith(("q_proj", "k_proj", "v_proj")):
            w = w * weights[layer + "input_layernorm.weight"].float()
        if module.endswith(("gate_proj", "up_proj")):
            w = w * weights[layer + "post_attention_layernorm.weight"].float()
        if module.endswith("down_proj"):
            if power != ffn:
                k, power = 12, ffn // 12
                assert power & (power - 1) == 0, f"{ffn} is not 12 times a power of two"
                w = walsh(w.reshape(-1, k, power), power)
                w = torch.einsum("kj,rjt->rkt", h12, w).reshape(-1, ffn) / k ** 0.5
                out[module + ".0.had_rem_dim"] = h12.half()
                power = ffn & -ffn
            else:
                w = walsh(w, ffn)
            module += ".2"
        if module.endswith("o_proj"):
            if heads & (heads - 1):
                return None, None  # one over the heads, of an order that QuaRot has no matrix for
            w = walsh(w.reshape(-1, heads, dim).transpose(1, 2), heads).transpose(1, 2).reshape(-1, heads * dim)
            module += ".1"
        scale = (w.abs().amax(1, keepdim=True) / 7).clamp(min=1e-6).half()
        codes = torch.round(w / scale.float()).clamp(-8, 7).to(torch.int8)
        out[module + ".weight"] = (codes[:, 0::2] & 15).to(torch.uint8) | (codes[:, 1::2] & 15).to(torch.uint8) << 4
        out[module + ".weight_scales"] = scale
        values[name] = scale.float() * codes
    return out, values


def hadamard(x, transposed):
    """H x of each row x, or H^T x."""
    n = x.shape[1]
    k = {1: 1, 3: 12, 5: 20, 7: 28, 9: 36, 15: 60, 27: 108, 35: 140}[n // (n & -n)]
    h = paley(k)
    x = walsh(x.reshape(-1, k, n // k), n // k)
    return torch.einsum("kj,rjt->rkt", h.T if transposed else h, x).reshape(-1, n) / k ** 0.5


TWELVE = """31113333 13113333 11313333 11133333 33313311 33313131 33311331 33313113 33311313 33311133 33133311 33133131 33131331
33133113 33131313 33131133 31333311 31333131 31331331 31333113 31331313 13331133 13333311 13333131 13331331 13333113 13331313
11331333 33113331""".split()
SLOTS = (0, 2, 4, 6, 1, 3, 5, 7)  # the coordinate of each sign bit


def e8p_rows():
    rows = [r for r in itertools.product((0.5, 1.5, 2.5), repeat=8) if sum(v * v for v in r) <= 10]
    return torch.tensor(rows + [[int(c) / 2 for c in r] for r in TWELVE])


def e8p(x):
    """Codes of E8P nearest to (n, 8), and their values."""
    rows = e8p_rows()
    odd = rows.sum(1) % 2 == 1
    slots = torch.tensor(SLOTS)
    codes, values = [], []
    for part in x.split(2048):
        best = None
        for minus, shift in ((0, 0.25), (1, -0.25)):
            y = part - shift
            size, dot = y.abs(), y.abs() @ rows.T
            least = torch.full_like(dot, 1e9)
            for i in range(8):
                least = torch.minimum(least, size[:, i:i + 1] * rows[:, i])
            wrong = ((y < 0).sum(1, keepdim=True) % 2 == 1) != odd
            score = 2 * torch.where(wrong, dot - 2 * least, dot) - (rows * rows).sum(1)
            at = score.argmax(1)
            row = rows[at]
            sign = torch.where(y < 0, -1.0, 1.0)
            turn = torch.nn.functional.one_hot((size * row).argmin(1), 8) * wrong.gather(1, at[:, None])
            sign = sign * (1 - 2 * turn)
            bits = (sign[:, slots] < 0).long()
            bits[:, 7] ^= odd[at].long()
            code = (at << 8) | (bits << torch.arange(8)).sum(1) ^ minus
            value = sign * row + shift
            distance = ((part - value) ** 2).sum(1)
            if best is None:
                best = [distance, code, value]
            else:
                nearer = distance < best[0]
                best = [best[0], torch.where(nearer, code, best[1]), torch.where(nearer[:, None], value, best[2])]
        codes.append(best[1])
        values.append(best[2])
    return torch.cat(codes), torch.cat(values)


def e8(x):
    """The same of the book of 256 vectors of E8."""
    book = [v for v in itertools.product((-1.0, 0.0, 1.0), repeat=8) if sum(c * c for c in v) <= 2 and sum(v) % 2 == 0]
    book += [v for v in itertools.product((-0.5, 0.5), repeat=8) if sum(v) % 2 == 0]
    book += [[s * (i == j) for j in range(8)] for s in (2.0, -2.0) for i in range(8)][:15]
    book = torch.tensor(book)
    codes = torch.cat([(2 * part @ book.T - (book * book).sum(1)).argmax(1) for part in x.split(65536)])
    return codes, book[codes]


def e8p_words(codes):
    """(rows, columns / 8) codes in the library's order: words of two rows and two columns, in tiles of 16 x 64 values."""
    m, n = codes.shape
    c = codes.numpy().astype(np.uint64).reshape(m // 16, 8, 2, n // 8, 4, 2).transpose(0, 3, 1, 4, 5, 2)
    c = c.reshape(-1, 4)  # code i = row + 2 * column
    words = np.zeros(len(c), np.uint64)
    for i in range(4):
        words |= (c[:, i] >> np.uint64(8)) << np.uint64(8 * i)
        for j in range(8):
            words |= (c[:, i] >> np.uint64(j) & np.uint64(1)) << np.uint64(32 + 4 * j + i)
    return torch.from_numpy(words.view(np.int64).reshape(m, n // 4).copy())


BOOKS = {2: ("E8P12", 7, 1, 4, 1.03, 1), 3: ("E8P12RVQ3B", 18, 0, 8 / 3, 0.98, 2.04), 4: ("E8P12RVQ4B", 17, 1, 2, 1.03, 3.45)}


def quip(weights, bits):
    """The state of QuIP#'s writer, without its Hessians and fine-tuning: each row of 8 to the nearest code."""
    _, book_id, _, _, scale, residual = BOOKS[bits]
    out = {n: w.half() for n, w in weights.items() if not n[:-len(".weight")].endswith(LAYER)}
    generator = torch.Generator().manual_seed(11)
    signs = lambda n: torch.randint(0, 2, (n,), generator=generator) * 2.0 - 1
    fused = {"self_attn.qkv_proj": LAYER[:3], "self_attn.o_proj": LAYER[3:4], "mlp.upgate_proj": (LAYER[5], LAYER[4]),
             "mlp.down_proj": LAYER[6:]}
    layers = sorted({n.split("self_attn")[0] for n in weights if "self_attn" in n})
    for layer in layers:
        for module, parts in fused.items():
            w = [weights[f"{layer}{part}.weight"].float() for part in parts]
            rms = torch.stack([p.square().mean().sqrt() for p in w])
            w = torch.cat([p / r for p, r in zip(w, rms)])
            su, sv = signs(w.shape[1]), signs(w.shape[0])
            w = hadamard(w * su, True)                       # rows times H
            w = hadamard((w * sv[:, None]).T, True).T        # columns: H^T times w
            step = w.square().mean().sqrt() / scale
            codes, values = e8p((w / step).reshape(-1, 8))
            shape = (w.shape[0], w.shape[1] // 8)
            words = [e8p_words(codes.reshape(shape))]
            rest = ((w / step).reshape(-1, 8) - values) * residual
            if bits == 4:
                words.append(e8p_words(e8p(rest)[0].reshape(shape)))
            if bits == 3:
                second = e8(rest)[0].reshape(shape).numpy().astype(np.uint8)
                words.append(torch.from_numpy(second.view(np.int64).copy()))
            single = len(parts) == 1
            tensors = {"Qidxs": torch.cat(words, 1), "SU": su.half(), "SV": (sv * step * (rms[0] if single else 1)).half(),
                       "Wscale": torch.tensor(1.0), "codebook_id": torch.tensor(book_id)}
            if not single:
                tensors["fuse_scales"] = rms
            out.update({f"{layer}{module}.{n}": t for n, t in tensors.items()})
    return out


def quip_config(bits):
    name, _, version, packsz, _, _ = BOOKS[bits]
    return {"codebook": name, "codebook_version": version, "codesz": 8, "idx_dtype": "torch.int64", "lora_rank": 0,
            "model_version": 1, "outlier_channel_split": False, "pack_out": False, "packsz": packsz, "rescale_WH": False,
            "resid_scale_override": -1}
