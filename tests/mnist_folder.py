"Folders with files in MNIST's form, for tests of what is trained from files."
from pathlib import Path

def write_part(folder, images, labels, part='train'):
    "Two IDX files: images `(n, 28, 28)` and labels `(n,)`, as bytes."
    Path(folder).mkdir(exist_ok=True)
    for name, t in [('images-idx3', images), ('labels-idx1', labels)]:
        head = bytes([0, 0, 8, t.dim()])
        for length in t.shape: head += length.to_bytes(4, 'big')
        content = head + t.byte().numpy().tobytes()
        (Path(folder)/f'{part}-{name}-ubyte').write_bytes(content)

def write_digits(folder, x, y):
    "Both parts of MNIST from the same flat digits in [0, 1)."
    for part in ('train', 't10k'):
        write_part(folder, (x*256).view(-1, 28, 28), y, part)
