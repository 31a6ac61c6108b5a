"""Field blocks by the package `hpack`, which has tables and Huffman codes, and what it makes of ours.
Writes blocks of one connection, each as JSON: the block in hexadecimal digits, and its fields. Then reads
blocks in hexadecimal digits, one a line, and writes their fields. Argument: how many."""

import json
import random
import sys

from hpack import Decoder, Encoder

NAMES = ["cookie", "accept", "x-a", "authorization", "last-event-id", "x-long-" + "y" * 40]
PSEUDO = [(":method", "GET"), (":scheme", "https"), (":authority", "a.example"), (":path", "/sse")]
LETTERS = [chr(code) for code in range(32, 127)]


def value(random_):
    return "".join(random_.choices(LETTERS, k=random_.choice([0, 1, 10, 200, 5000])))


def main(count):
    random_ = random.Random(1)
    encoder = Encoder()
    for number in range(count):
        if random_.random() < 0.1:
            encoder.header_table_size = random_.choice([0, 100, 1000, 4096])
        known = [value(random_) for _ in range(3)]
        fields = random_.sample(PSEUDO, random_.randrange(5))
        fields += [(random_.choice(NAMES), random_.choice(known)) for _ in range(random_.randrange(8))]
        block = encoder.encode(fields, huffman=random_.random() < 0.5)
        print(json.dumps([block.hex(), fields]), flush=True)
    for line in sys.stdin:
        fields = Decoder().decode(bytes.fromhex(line), raw=True)
        print(json.dumps([[part.decode("latin1") for part in field] for field in fields]), flush=True)


main(int(sys.argv[1]))
