# SPDX-License-Identifier: Apache-2.0
"""What the word problems of `gsm_tiny_problems` are made of: texts, words, ranges of numbers.

In a text, ``{a}`` is a number, ``{name}`` a word of that kind, and ``{a * b = x}`` a step of the
solution, whose result later steps may use. The last result is the answer.
"""

from collections.abc import Mapping
from typing import NamedTuple

WORDS: Mapping[str, tuple[str, ...]] = {
    "name": (
        *("Ada", "Ben", "Carla", "Dario", "Elif", "Finn", "Greta", "Hugo", "Ines", "Jonas"),
        *("Kaya", "Leo", "Mina", "Nils", "Olga", "Pablo", "Quinn", "Rosa", "Samir", "Tessa"),
        *("Umar", "Vera", "Wanda", "Xavi", "Yuki", "Zoe"),
    ),
    "fruit": ("apples", "pears", "plums", "lemons", "figs", "peaches", "limes", "mangoes"),
    "toy": ("marbles", "stickers", "cards", "kites", "puzzles", "dice", "beads", "shells"),
    "tool": ("pens", "pencils", "erasers", "notebooks", "brushes", "crayons", "rulers", "folders"),
    "animal": ("sheep", "goats", "ducks", "hens", "ponies", "rabbits", "geese", "cows"),
    "flower": ("roses", "tulips", "lilies", "daisies", "poppies", "orchids"),
    "food": ("muffins", "pies", "rolls", "waffles", "bagels", "tarts", "buns", "cookies"),
    "clothes": ("shirts", "hats", "scarves", "coats", "belts", "gloves"),
    "place": ("school", "library", "market", "museum", "park", "farm", "harbor", "theater"),
}


class Template(NamedTuple):
    """One kind of problem."""

    question: str
    solution: str
    numbers: Mapping[str, tuple[int, int]]
    """The smallest and the largest value of each number."""


def _template(question: str, solution: str, **numbers: tuple[int, int]) -> Template:
    return Template(question, solution, numbers)


TEMPLATES: tuple[Template, ...] = (
    _template(
        "{name} fills {a} crates and puts {b} {fruit} in each crate. "
        "How many {fruit} is that in all?",
        "{name} packs {a * b = x} {fruit}.",
        a=(12, 99),
        b=(101, 480),
    ),
    _template(
        "A basket holds {a} {fruit}. {name} adds {b} more. How many {fruit} are in it now?",
        "Now it holds {a + b = x} {fruit}.",
        a=(105, 400),
        b=(105, 400),
    ),
    _template(
        "{name} had {a} {toy} and lost {b} of them on the way to the {place}. "
        "How many {toy} are left?",
        "{a - b = x} {toy} are left.",
        a=(120, 500),
        b=(15, 300),
    ),
    _template(
        "{name} shares {a} {food} equally among {b} guests. How many {food} does each guest get?",
        "Each guest gets {a / b = x} {food}.",
        a=(100, 2400),
        b=(6, 48),
    ),
    _template(
        "One of the {tool} costs ${a}. What do {b} of these {tool} cost in dollars?",
        "They cost {b * a = x} dollars.",
        a=(12, 99),
        b=(12, 60),
    ),
    _template(
        "{name} buys {a} {clothes} at ${b} each and pays with ${c}. How many dollars come back?",
        "The {clothes} cost {a * b = x} dollars.\n{name} gets back {c - x = y} dollars.",
        a=(2, 12),
        b=(4, 30),
        c=(50, 200),
    ),
    _template(
        "{name} is {a} years old. {other} is {b} years older. How old is {other}?",
        "{other} is {a + b = x} years old.",
        a=(3, 75),
        b=(2, 40),
    ),
    _template(
        "{name} is {a} years old, which is {b} times the age of {other}. How old is {other}?",
        "{other} is {a / b = x} years old.",
        a=(4, 400),
        b=(2, 12),
    ),
    _template(
        "{name} is {a} and {other} is {b} years old. How old will they be together in {c} years?",
        "Today they are {a + b = x} years together.\nBoth grow, which adds {2 * c = y} years.\n"
        "Then it is {x + y = z} years.",
        a=(4, 40),
        b=(4, 40),
        c=(2, 25),
    ),
    _template(
        "{name} reads {a} pages a day. How many pages does {name} read in {b} days?",
        "{name} reads {b * a = x} pages.",
        a=(12, 99),
        b=(101, 365),
    ),
    _template(
        "A book has {a} pages. {name} has read {b} of them and reads {c} pages an evening. "
        "How many evenings does the rest take?",
        "{a - b = x} pages remain.\nThat takes {x / c = y} evenings.",
        a=(60, 240),
        b=(10, 120),
        c=(4, 20),
    ),
    _template(
        "A train leaves for the {place} and drives {a} miles in each hour. "
        "How far is it after {b} hours?",
        "It is {a * b = x} miles away.",
        a=(101, 180),
        b=(12, 72),
    ),
    _template(
        "{name} rides {a} miles to the {place} and the same way back, on {b} days. "
        "How many miles is that?",
        "A day has {2 * a = x} miles.\nIn all it is {x * b = y} miles.",
        a=(12, 80),
        b=(5, 40),
    ),
    _template(
        "A show starts {a} minutes after noon and lasts {b} minutes, with a break of {c} minutes. "
        "How many minutes after noon does it end?",
        "With the break it lasts {b + c = x} minutes.\nIt ends {a + x = y} minutes after noon.",
        a=(10, 60),
        b=(30, 120),
        c=(5, 20),
    ),
    _template(
        "{name} works {a} hours a day for {b} days and earns ${c} an hour. "
        "How many dollars does {name} earn?",
        "{name} works {a * b = x} hours.\n{name} earns {x * c = y} dollars.",
        a=(2, 10),
        b=(12, 60),
        c=(12, 60),
    ),
    _template(
        "{name} has {a} {toy}. {other} has {b} times as many. How many {toy} do both have?",
        "{other} has {a * b = x} {toy}.\nTogether they have {a + x = y} {toy}.",
        a=(101, 900),
        b=(12, 60),
    ),
    _template(
        "{name} picked {a} {fruit} and {other} picked {b} fewer. How many did they pick together?",
        "{other} picked {a - b = x} {fruit}.\nTogether they picked {a + x = y} {fruit}.",
        a=(12, 150),
        b=(2, 100),
    ),
    _template(
        "On a farm there are {a} {animal}. {b} are sold and {c} are born. "
        "How many {animal} does the farm have then?",
        "After the sale there are {a - b = x} {animal}.\nThen there are {x + c = y} {animal}.",
        a=(20, 90),
        b=(3, 50),
        c=(2, 20),
    ),
    _template(
        "A farmer keeps {a} {animal} in each of {b} fields and {c} more in the barn. "
        "How many {animal} are there?",
        "The fields hold {a * b = x} {animal}.\nThere are {x + c = y} {animal}.",
        a=(101, 480),
        b=(12, 30),
        c=(10, 20),
    ),
    _template(
        "{a} {flower} stand in vases of {b}. How many vases are full?",
        "{a / b = x} vases are full.",
        a=(100, 2000),
        b=(6, 40),
    ),
    _template(
        "{name} ties {a} bunches of {b} {flower} and asks ${c} for each flower. "
        "How many dollars do all bunches bring?",
        "There are {a * b = x} {flower}.\nThey bring {x * c = y} dollars.",
        a=(2, 15),
        b=(3, 12),
        c=(2, 9),
    ),
    _template(
        "A gardener plants {a} rows of {b} {flower} and {c} rows of {d} {flower} more. "
        "How many {flower} grow there?",
        "The first rows have {a * b = x} {flower}.\nThe others have {c * d = y} {flower}.\n"
        "In all {x + y = z} {flower} grow.",
        a=(2, 12),
        b=(3, 15),
        c=(2, 9),
        d=(3, 15),
    ),
    _template(
        "The {place} sells {a} tickets in the morning and {b} times as many after lunch. "
        "How many tickets are sold after lunch?",
        "After lunch it sells {a * b = x} tickets.",
        a=(105, 900),
        b=(12, 60),
    ),
    _template(
        "A ticket for the {place} costs ${a} and a drink ${b}. "
        "What do {c} people pay who each take one of both?",
        "One person pays {a + b = x} dollars.\nAll pay {x * c = y} dollars.",
        a=(4, 30),
        b=(2, 12),
        c=(12, 60),
    ),
    _template(
        "{name} saves ${a} a week. How many weeks does it take to save ${b}?",
        "It takes {b / a = x} weeks.",
        a=(12, 60),
        b=(150, 2000),
    ),
    _template(
        "{name} has ${a}, saves ${b} more each month, and wants ${c}. "
        "How many months does that take?",
        "{c - a = x} dollars are missing.\nIt takes {x / b = y} months.",
        a=(10, 90),
        b=(5, 30),
        c=(60, 300),
    ),
    _template(
        "A bakery makes {a} {food} an hour. It opens for {b} hours and {c} {food} stay unsold. "
        "How many {food} are sold?",
        "It makes {a * b = x} {food}.\nIt sells {x - c = y} {food}.",
        a=(40, 150),
        b=(6, 24),
        c=(10, 50),
    ),
    _template(
        "{name} bakes {a} {food}. The family eats {b}, and the rest goes into boxes of {c}. "
        "How many boxes are needed?",
        "{a - b = x} {food} are left.\nThat fills {x / c = y} boxes.",
        a=(30, 200),
        b=(4, 40),
        c=(3, 15),
    ),
    _template(
        "A recipe takes {a} eggs for {b} {food}. How many eggs do {c} times as many {food} take?",
        "They take {a * c = x} eggs.",
        a=(6, 60),
        b=(6, 24),
        c=(6, 60),
    ),
    _template(
        "A box has {a} {tool}. A class of {b} children gets {c} boxes. "
        "How many {tool} are there for each child?",
        "There are {a * c = x} {tool}.\nEach child has {x / b = y} {tool}.",
        a=(4, 40),
        b=(4, 25),
        c=(2, 20),
    ),
    _template(
        "{name} sorts {a} {tool} into {b} equal piles and takes away one pile. "
        "How many {tool} remain?",
        "A pile has {a / b = x} {tool}.\n{a - x = y} {tool} remain.",
        a=(100, 1500),
        b=(6, 40),
    ),
    _template(
        "{a} children share {b} {toy} from {name} and {c} {toy} from {other} equally. "
        "How many {toy} does each child get?",
        "There are {b + c = x} {toy}.\nEach child gets {x / a = y} {toy}.",
        a=(2, 15),
        b=(10, 90),
        c=(10, 90),
    ),
    _template(
        "A bus has {a} seats. On {b} trips to the {place} all seats are taken, "
        "on one more trip only {c}. How many people went there?",
        "The full trips bring {a * b = x} people.\nIn all {x + c = y} people went.",
        a=(24, 90),
        b=(4, 30),
        c=(3, 40),
    ),
    _template(
        "The {place} had {a} visitors on Monday, {b} on Tuesday and {c} on Wednesday. "
        "How many visitors is that in three days?",
        "In two days it is {a + b = x} visitors.\nIn three days it is {x + c = y} visitors.",
        a=(10, 55),
        b=(10, 55),
        c=(10, 55),
    ),
    _template(
        "A pool holds {a} gallons. A pump moves {b} gallons a minute and runs for {c} minutes. "
        "How many gallons are still in the pool?",
        "The pump moves {b * c = x} gallons.\n{a - x = y} gallons are still there.",
        a=(200, 400),
        b=(3, 20),
        c=(4, 25),
    ),
    _template(
        "A rope is {a} feet long. {name} cuts off {b} pieces of {c} feet. "
        "How many feet of rope are left?",
        "The pieces take {b * c = x} feet.\n{a - x = y} feet are left.",
        a=(60, 300),
        b=(2, 12),
        c=(3, 20),
    ),
    _template(
        "A garden is {a} feet wide and {b} feet long. How many feet of fence go around it?",
        "Two sides have {a + b = x} feet.\nAll sides have {2 * x = y} feet.",
        a=(6, 150),
        b=(8, 200),
    ),
    _template(
        "A wall is {a} feet high and {b} feet wide. {name} paints {c} such walls. "
        "How many square feet is that?",
        "One wall has {a * b = x} square feet.\nIt is {c * x = y} square feet.",
        a=(12, 40),
        b=(12, 60),
        c=(2, 9),
    ),
    _template(
        "Of {a} {animal}, one in {b} is black. How many {animal} are not black?",
        "{a / b = x} {animal} are black.\n{a - x = y} {animal} are not.",
        a=(12, 500),
        b=(3, 20),
    ),
    _template(
        "Half of the {a} {clothes} in a shop are red, and {b} of the red ones are sold. "
        "How many red {clothes} stay in the shop?",
        "{a / 2 = x} {clothes} are red.\n{x - b = y} of them stay.",
        a=(20, 400),
        b=(3, 90),
    ),
    _template(
        "A coat costs ${a}. In the sale it is {b} percent cheaper. "
        "How many dollars does {name} save?",
        "{a * b = x} is a hundred times that.\n{name} saves {x / 100 = y} dollars.",
        a=(20, 400),
        b=(5, 60),
    ),
    _template(
        "{name} buys {a} {fruit} at ${b} each and {c} {food} at ${d} each. "
        "How many dollars is that in all?",
        "The {fruit} cost {a * b = x} dollars.\nThe {food} cost {c * d = y} dollars.\n"
        "In all it is {x + y = z} dollars.",
        a=(2, 12),
        b=(2, 9),
        c=(2, 12),
        d=(2, 12),
    ),
    _template(
        "{name} sells {a} {food} at ${b} each and spends ${c} on flour. "
        "How many dollars of profit are left?",
        "{name} takes in {a * b = x} dollars.\nThe profit is {x - c = y} dollars.",
        a=(101, 480),
        b=(12, 30),
        c=(10, 20),
    ),
    _template(
        "{name} scores {a} points in the first game, {b} more in the second, "
        "and as many in the third as in both. How many points are in the third?",
        "The second game has {a + b = x} points.\nThe third has {a + x = y} points.",
        a=(8, 150),
        b=(3, 120),
    ),
    _template(
        "{name} walks {a} steps a minute and {other} walks {b} steps a minute. "
        "After {c} minutes, how many more steps has {name}?",
        "{name} gains {a - b = x} steps a minute.\nIt is {x * c = y} steps more.",
        a=(100, 130),
        b=(40, 70),
        c=(60, 160),
    ),
    _template(
        "A shelf holds {a} books and the {place} has {b} such shelves. {c} books are lent. "
        "How many books are on the shelves?",
        "The shelves hold {a * b = x} books.\n{x - c = y} books are there.",
        a=(20, 60),
        b=(101, 300),
        c=(10, 20),
    ),
    _template(
        "{name} and {other} earn ${a} together. They pay ${b} for lunch and share the rest "
        "equally. How many dollars does each get?",
        "{a - b = x} dollars are left.\nEach gets {x / 2 = y} dollars.",
        a=(30, 300),
        b=(6, 80),
    ),
    _template(
        "A team of {a} people loads {b} boxes each, and one truck takes {c} boxes. "
        "How many trucks are full?",
        "They load {a * b = x} boxes.\n{x / c = y} trucks are full.",
        a=(3, 24),
        b=(4, 30),
        c=(6, 30),
    ),
)
