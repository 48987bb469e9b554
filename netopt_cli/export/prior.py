"""What `tree` expects of a network before it has seen any: coded by itself, without expectations.

A coder that has decoded these two networks codes the structure of a third in half of the bytes.
`benchmarks/packing_prior.py` makes the constant.
"""

from __future__ import annotations

import base64

from netopt_cli.export.entropy import Coder, Decoder
from netopt_cli.export.tree import TreeCoder

_ROOM = 1 << 24
_NETWORKS = 2
_STREAM = (
    "F?~`0Uxa$_^pj@z_D*7?pHb*m2^Da8X{}aL>xgI$s62NVbJbauV2<0aBqkdy;*s!z1lX*RX$LQZ*?6*aoOaH5xSx0|3v"
    "4~2K-o6=gquUy#)X|ir^<KXepa38E0ouBV_*w$b;9ZgmU@(P(f%Pe(Y_05xI6K>heQwS>8^D8a`7$w(xL}^@^bVpKDLJ"
    "Wof1AK4;J>w$C~4inP})Su=>E1cT9&I$*}9KW&I-bf|C~DCs67&aT?^c$U-X4MWjcX<oXi+C*U{jRXwF;kgqRy=KlBPk"
    ";2%J{6Y%OoQv`(mW^boSO5CvSEiV+66YjaFaV-^BA71PS5?W>rzx+F1Ue5WDgKSS^^3auX+;)m-!n6D)zmxuMpU*#k}("
    "&reOlLy(A+`"
)


def experienced(coder: Coder) -> TreeCoder:
    """Returns a coder of trees that knows what networks look like."""
    trees = TreeCoder(Decoder(base64.b85decode(_STREAM)))
    for _ in range(_NETWORKS):
        trees.code(None, _ROOM)
    trees.go_on(coder)
    return trees
