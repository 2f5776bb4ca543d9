"""Real key frames of great size, flat and therefore small: one each of libvpx and x264."""

from __future__ import annotations

import base64
import lzma

_PACKED = {
    "vp8-16383x16383": (
        "AAAAAAT//////////wAYHgNSOv60cVf7OZHwlcsgoSsgmSIFzUHvBcgnOmsfP0zwk9pQHtAxQigz1JIx2rjl"
        "TYeI9EkN+FEjC5g1lt6m+jY9nlWCy6VI6OnfPG6GU6cVdFRxNZ7gBStC3ez1xos7oHvKn0T4Ny1g3etysuRG"
        "9lTwiHUsMNvCUFSRIpcGA1/JcDsUwDI3mKUVAaXoowkq7Kr86W7gWrTyyFym4xOi5tM8OJdumFLYfhFe///y"
        "0DgA"
    ),
    "h264-16000x16000": (
        "AAAAAAT//////////wAAaL6m+MhEuYRq4HtJQnuRYwmxJkgcawOQ6FAiIvIhYSEL64tjzctIxOntK/76XoiL"
        "J2RUhTKu8W68thrzhuQgtLloQamODrDSt8eJOEmXWOa3c+RB1AHhnzluaV7ub9IPSt987Dvpqj7D+RNkl+TP"
        "jxnJkD+R9UfGV0YqytyK5FMIzxieC0AMZA6e3dZ6Xgx5+Uz3BsC4CCQHDOc+Cv/FmBNWMmnKZoixk6uR60I/"
        "aQws9QinIFXaDt3KU2EX6CroyxrlC9MyzccCdDH+gYhZrGhikALie9e1KJ6YoYXIVkJPaKs+uMQeVeucF+Kw"
        "NlifKt2nV0kiAp0NZ3Pl/Of6uigBAT7bCougH+B8Lri7T0onjeT5k/JTWFALR/xP+wNIN+fe/5LQoux8nnsY"
        "dtTl+iRpHg92To4G0b5HCYoNo5+OJdh6A7lbBapnRJj/Q/Xw/haOKep6FPxYQlY7S+01qyekByhcnvROvZpS"
        "RUkc9i6QewaJVu6j1NH4zW97MfBV3Iq98rVJmUgRz+JhA8jabG1IUz/XXaI7PBA3eROg43z9GoC5BXpPCGS/"
        "3FQSjg+wlGVaJPJNiyYU+YijyOWx75L6+Ot0EZvg8fw9/G5SkvrI4w2nxvKpusI2S/gOsGQnUbrYGCR8BJgU"
        "f7Dk8wkAZk9CfO/Ub2GBmCUaGDRYpmCEJYNu6puhxa9rXupGDgGaix4KPhWAmKqAyyps37U78MS9Ll+qDz5L"
        "ZkKQEw7/EJP4cXhZ+AvN/5UoRg+p/Hze+5owLlbAj4Xzg4HAZcQlU/j1kTYxBaWw7m/BcE1HDNGREaqtYB26"
        "zrEnF957usgkw93++3knnQ=="
    ),
    "h264-4112x2320": (
        "AAAAAAT//////////wAAaL6m+MhEsh2+4oENdhfl3diPqXdvBkHyqhLxgOc3K8Ws+8znz10870XlvRanCFVz"
        "CBkNOxsvARqliahy1zXybdpyZxwyrScawTM9b3lmHWSEwcfVlooUxJHl/9wHGq1N4bQYHlNRUh5Sd/yYmgUG"
        "DxXqDyCm40Tx5Uhe4g4DrwgzyXeFzGOt+qlTlwujomdgwhObJrXvFyt7CldSHlnOVEZSRJjr92rBwo4KtbEk"
        "JaSc7gjmo4LOt/bkyQpwDm/iRNDGGGgOaBr7FHtWfCRldHyTP7km4AYGmeTBo/tajCDQawX3dkjq7P1xEHz0"
        "x8uZy7+iGSM71GX1ErW7mIFs4h5oLOsY4vI8ng3YYxKJPo4YyYbrBRF1uOpcG9rPYe4h51vkXSDHZPBtqEJo"
        "IW2SzSdzOjbF6jlf0yuA6RPcj0KN8tCfGK1jt584RHS+Gd3me/djfcWRzFSDcTVJTbaay7Fmbe/n5PWkyxRM"
        "S9B7t6FKZPwXTqoLHxcaoKG7wn7fJXKfDyuLcbYvTkJAsmcw/TvplCFmyEAnDs1bC1K2ZhL+YDbmeFpCpive"
        "wzA9+RjADD2QMB0MP1ttZJWgNnlwS7AGZzyWwxwoZDEWmA1vmY/kZ2gnSyq1v38D57NqGGr/rnDrs8gCzsNg"
        "ZHBoUccA+WBZ1dfbM5UTAJfzgGmuA4q2m2B2vzjAEXKN/7bXLgA="
    ),
}


def key_frame(name: str) -> bytes:
    """Return a frame by its codec and size, such as ``"vp8-16383x16383"``."""
    return lzma.decompress(base64.b64decode(_PACKED[name]))
