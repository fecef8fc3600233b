"""Drawn scenes in which boxes meet: side by side, one in the other, one before the other."""

from __future__ import annotations

from tests.helpers.fusion_drawings import Object, Scene

SEVERAL = (
    Scene(
        "a rider on a bike",
        """
        ..............   ..............
        .....pp.......   .....22.......
        ....pppp......   ....2222......
        .....ppp......   .....222......
        .b...pp....b..   .1...22....1..
        bbb.bpbb..bbb.   111.1211..111.
        b.bbbpbbbbb.b.   1.111211111.1.
        bbb..p....bbb.   111..2....111.
        .b.........b..   .1.........1..
        ..............   ..............
        """,
        (Object("bike", 0.8, (0, 4, 13, 9)), Object("person", 0.9, (4, 1, 8, 8))),
    ),
    Scene(
        "a small one inside a large one of its class",
        """
        ..............   ..............
        .cccccccccccc.   .111111111111.
        .cccccccccccc.   .111111111111.
        .cccccccccccc.   .111122211111.
        .cccccccccccc.   .111122211111.
        .cccccccccccc.   .111122211111.
        .cccccccccccc.   .111111111111.
        .cccccccccccc.   .111111111111.
        ..............   ..............
        """,
        (Object("car", 0.9, (1, 1, 13, 8)), Object("car", 0.8, (5, 3, 8, 6))),
    ),
    Scene(
        "two small ones inside a large one, one of them less sure and in its corner",
        """
        ..............   ..............
        .cccccccccccc.   .222111111111.
        .cccccccccccc.   .222111111111.
        .cccccccccccc.   .222111133311.
        .cccccccccccc.   .111111133311.
        .cccccccccccc.   .111111133311.
        .cccccccccccc.   .111111133311.
        .cccccccccccc.   .111111111111.
        ..............   ..............
        """,
        (
            Object("car", 0.95, (1, 1, 13, 8)),
            Object("car", 0.5, (1, 1, 4, 4)),
            Object("car", 0.7, (8, 3, 11, 7)),
        ),
    ),
    Scene(
        "one inside another inside a third",
        """
        ................   ................
        .cccccccccccccc.   .11111111111111.
        .cccccccccccccc.   .11111111111111.
        .cccccccccccccc.   .11122222222111.
        .cccccccccccccc.   .11122222222111.
        .cccccccccccccc.   .11122333322111.
        .cccccccccccccc.   .11122333322111.
        .cccccccccccccc.   .11122222222111.
        .cccccccccccccc.   .11122222222111.
        .cccccccccccccc.   .11111111111111.
        .cccccccccccccc.   .11111111111111.
        ................   ................
        """,
        (
            Object("car", 0.9, (1, 1, 15, 11)),
            Object("car", 0.7, (4, 3, 12, 9)),
            Object("car", 0.6, (6, 5, 10, 7)),
        ),
    ),
    Scene(
        "a block in the elbow of an L of its class",
        """
        ............   ............
        .cc.........   .11.........
        .cc.........   .11.........
        .cc..cccccc.   .11..222222.
        .cc..cccccc.   .11..222222.
        .cc..cccccc.   .11..222222.
        .cc.........   .11.........
        .cccccccccc.   .1111111111.
        .cccccccccc.   .1111111111.
        ............   ............
        """,
        (Object("car", 0.9, (1, 1, 11, 9)), Object("car", 0.6, (5, 3, 11, 6))),
    ),
    Scene(
        "a block beside a thin diagonal, inside its box",
        """
        ............   ............
        .c....ccccc.   .1....22222.
        ..c...ccccc.   ..1...22222.
        ...c..ccccc.   ...1..22222.
        ....c.ccccc.   ....1.22222.
        .....c......   .....1......
        ......c.....   ......1.....
        .......c....   .......1....
        ........c...   ........1...
        .........c..   .........1..
        ..........c.   ..........1.
        ............   ............
        """,
        (Object("car", 0.9, (1, 1, 11, 11), "shown"), Object("car", 0.6, (6, 1, 11, 5))),
    ),
    Scene(
        "a large false box over four exact ones",
        """
        ..............   ..............
        .ccc......ccc.   .222......333.
        .ccc......ccc.   .222......333.
        .ccc......ccc.   .222......333.
        ..............   ..............
        ..............   ..............
        .ccc......ccc.   .444......555.
        .ccc......ccc.   .444......555.
        ..............   ..............
        """,
        (
            Object("car", 0.95, (1, 1, 13, 8), "doubted"),
            Object("car", 0.8, (1, 1, 4, 4)),
            Object("car", 0.7, (10, 1, 13, 4)),
            Object("car", 0.6, (1, 6, 4, 8)),
            Object("car", 0.45, (10, 6, 13, 8)),
        ),
    ),
    Scene(
        "a large false box over three exact ones that touch",
        """
        ..............   ..............
        .cccccccccccc.   .222233334444.
        .cccccccccccc.   .222233334444.
        .cccccccccccc.   .222233334444.
        .cccccccccccc.   .222233334444.
        ..............   ..............
        """,
        (
            Object("car", 0.9, (1, 1, 13, 5), "doubted"),
            Object("car", 0.8, (1, 1, 5, 5)),
            Object("car", 0.7, (5, 1, 9, 5)),
            Object("car", 0.6, (9, 1, 13, 5)),
        ),
    ),
    Scene(
        "two that touch",
        """
        ............   ............
        .cccccccccc.   .1111122222.
        .cccccccccc.   .1111122222.
        .cccccccccc.   .1111122222.
        ............   ............
        """,
        (Object("car", 0.9, (1, 1, 6, 4)), Object("car", 0.8, (6, 1, 11, 4))),
    ),
    Scene(
        "two that overlap",
        """
        ..............   ..............
        ..cccccc......   ..111111......
        ..cccccc......   ..111111......
        ..ccccccccccc.   ..1???????222.
        ..ccccccccccc.   ..1???????222.
        ......ccccccc.   ......2222222.
        ......ccccccc.   ......2222222.
        ..............   ..............
        """,
        (Object("car", 0.9, (2, 1, 8, 5)), Object("car", 0.8, (6, 3, 13, 7))),
    ),
    Scene(
        "a half hidden behind another class",
        """
        ..............   ..............
        .....pppp.....   .....2222.....
        .ccccpppp.....   .11112222.....
        .ccccpppp.....   .11112222.....
        .ccccpppp.....   .11112222.....
        .....pppp.....   .....2222.....
        ..............   ..............
        """,
        (Object("car", 0.8, (1, 2, 9, 5), "shown"), Object("person", 0.9, (5, 1, 9, 6))),
    ),
    Scene(
        "one cut in two by what stands before it",
        """
        ..............   ..............
        .....ppp......   .....222......
        .ccccpppccccc.   .111122211111.
        .ccccpppccccc.   .111122211111.
        .ccccpppccccc.   .111122211111.
        .....ppp......   .....222......
        ..............   ..............
        """,
        (Object("car", 0.8, (1, 2, 13, 5)), Object("person", 0.9, (5, 1, 8, 6))),
    ),
    Scene(
        "a box that stands twice",
        """
        ........   ........
        .cccccc.   .111111.
        .cccccc.   .111111.
        .cccccc.   .111111.
        ........   ........
        """,
        (Object("car", 0.8, (1, 1, 7, 4)), Object("car", 0.8, (1, 1, 7, 4), "doubted")),
    ),
    Scene(
        "an unsure exact box inside a sure sloppy one",
        """
        ..............   ..............
        ..............   ..............
        ....cccccc....   ....222222....
        ....cccccc....   ....222222....
        ....cccccc....   ....222222....
        ..............   ..............
        ..............   ..............
        """,
        (Object("car", 0.9, (1, 0, 13, 7), "doubted"), Object("car", 0.4, (4, 2, 10, 5))),
    ),
    Scene(
        "noise inside a sure object",
        """
        ............   ............
        .cccccccccc.   .1111111111.
        .cccccccccc.   .1111111111.
        .cccccccccc.   .1111111111.
        .cccccccccc.   .1111111111.
        .cccccccccc.   .1111111111.
        ............   ............
        """,
        (Object("car", 0.9, (1, 1, 11, 6)), Object("car", 0.1, (2, 2, 5, 5), "doubted")),
    ),
    Scene(
        "a crowded grid",
        """
        cccccccccccc   111222333444
        cccccccccccc   111222333444
        cccccccccccc   111222333444
        cccccccccccc   555666777888
        cccccccccccc   555666777888
        cccccccccccc   555666777888
        """,
        tuple(
            Object("car", 0.9 - 0.05 * (4 * row + column), (3 * column, 3 * row, 3 * column + 3, 3 * row + 3))
            for row in range(2)
            for column in range(4)
        ),
    ),
    Scene(
        "two as sure as each other",
        """
        ..............   ..............
        .cccccccccccc.   .11111??22222.
        .cccccccccccc.   .11111??22222.
        .cccccccccccc.   .11111??22222.
        ..............   ..............
        """,
        (Object("car", 0.7, (1, 1, 8, 4)), Object("car", 0.7, (6, 1, 13, 4))),
    ),
    Scene(
        "a false box over the whole image",
        """
        ~~~~~~~~~~~~~~   ..............
        ~ccc~~~~~~~~~~   .222..........
        ~ccc~~~~~ppp~~   .222.....333..
        .ccc.....ppp..   .222.....333..
        .........ppp..   .........333..
        ..............   ..............
        """,
        (
            Object("car", 0.9, (0, 0, 14, 6), "doubted"),
            Object("car", 0.5, (1, 1, 4, 4)),
            Object("person", 0.4, (9, 2, 12, 5)),
        ),
    ),
    Scene(
        "a person in the hole of a ring of cars",
        """
        ............   ............
        .cccccccccc.   .1111111111.
        .cccccccccc.   .1111111111.
        .ccppppppcc.   .1122222211.
        .ccppppppcc.   .1122222211.
        .ccppppppcc.   .1122222211.
        .cccccccccc.   .1111111111.
        .cccccccccc.   .1111111111.
        ............   ............
        """,
        (Object("car", 0.9, (1, 1, 11, 8)), Object("person", 0.5, (3, 3, 9, 6))),
    ),
    Scene(
        "a ring of the same class around one",
        """
        ............   ............
        .cccccccccc.   .1111111111.
        .c........c.   .1........1.
        .c.cccccc.c.   .1.222222.1.
        .c.cccccc.c.   .1.222222.1.
        .c.cccccc.c.   .1.222222.1.
        .c........c.   .1........1.
        .cccccccccc.   .1111111111.
        ............   ............
        """,
        (Object("car", 0.9, (1, 1, 11, 8), "shown"), Object("car", 0.5, (3, 3, 9, 6))),
    ),
)
