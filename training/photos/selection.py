"""Which pictures of which packages are taken, and which are held out.

Chosen by eye from contact sheets: photographs only, no paintings, drawings or renderings, one per
scene. Held out are whole photos, so that no part of them is ever trained on.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath

_MONUMENTS = {
    "egypt": "meidumPyramid greatPyramidOfGiza bentPyramid redPyramid",
    "france": (
        "chateaudeChambord pontduGard palaisdesPapes reimsCathedral eiffelTower citedeCarcassonne"
        " arlesAmphitheater chateaudeChenonceau montStMichel rocamadour"
    ),
    "germany": (
        "berlinCathedral schwerinPalace trierImperialBaths aulaPalatina brandenburgGate"
        " neuschwansteinCastle wormsCathedral"
    ),
    "india": (
        "greatStupa gatewayofIndia konarkSunTemple charminar hawaMahal rangGhar victoriaMemorial"
        " mysorePalace goldenTemple ajantaCave qutubMinar"
    ),
    "usa": (
        "canyondeChelly georgeWashingtonBirthplace lincolnMemorial navajo cabrillo mountRushmore"
        " statueofLiberty castillodeSanMarcos fortSumter castleClinton"
    ),
    "wonders": (
        "machuPicchu tajMahal chichenItza colosseum petra greatWallofChina christTheRedeemer"
    ),
}


@dataclass(frozen=True)
class Source:
    """Pictures of one package.

    Attributes:
        package: name of the Debian package.
        folder: installed folder, or the Qt resource file, that holds them; relative to ``/``.
        prefix: what stands before a picture's name inside ``folder``.
        names: pictures, blank-separated, without ``suffix``.
        suffix: what follows a picture's name.
        source_prefix: folder of the source package, as the copyright file names it.
    """

    package: str
    folder: str
    names: str
    prefix: str = ""
    suffix: str = ".jpg"
    source_prefix: str = ""

    @property
    def is_qt_resource(self) -> bool:
        """The pictures lie inside a Qt resource file."""
        return self.folder.endswith(".rcc")

    @property
    def group(self) -> str:
        """First part of the pictures' keys: the Qt resource's name, otherwise the package."""
        return PurePosixPath(self.folder).stem if self.is_qt_resource else self.package

    def files(self) -> dict[str, str]:
        """Key ``group/name`` of every picture -> its path below ``folder``."""
        return {
            f"{self.group}/{name}": f"{self.prefix}{name}{self.suffix}"
            for name in self.names.split()
        }

    def source_path(self, file: str) -> str:
        """Where the source package has ``file``, a path below ``folder``."""
        if self.is_qt_resource:
            return file.removeprefix("gcompris/gcompris/")
        return f"{self.source_prefix}{file}"


def _gcompris(activity: str, names: str, inner: str, suffix: str = ".webp") -> Source:
    """Pictures of one activity of GCompris."""
    return Source(
        package="gcompris-qt-data",
        folder=f"usr/share/gcompris-qt/rcc/{activity}.rcc",
        prefix=f"gcompris/gcompris/src/activities/{activity}/resource/{inner}",
        names=names,
        suffix=suffix,
    )


SOURCES = (
    _gcompris(
        "details",
        "EgeskovSlotSpejling GizahPyramids EilanDonanCastle Nagoya TajMahal Neuschwanstein"
        " OperaSidney",
        "image/",
        "_background.webp",
    ),
    _gcompris(
        "erase",
        "gorilla northern_harrier pika caterpillar giraffe calf penguin nubian_ibex camels macaque"
        " swans dolphin long_nosed_monkey kingfisher heron chamaeleon flying_fox gibbon rhinoceros"
        " crab goat toucan gosling horse alpaca cheetah butterfly bee meerkats kitten red_panda"
        " squirrel spoonbills",
        "",
    ),
    _gcompris("explore_farm_animals", "dog cow cat chicken horse duck sheep owl pig", "animals/"),
    *(_gcompris("explore_monuments", names, f"{part}/") for part, names in _MONUMENTS.items()),
    _gcompris(
        "explore_world_animals",
        "crocodile giraffe koala bison dragon jaguar hedgehog kangaroo narwhal moose panda"
        " chameleon lemur polar_bear scarlet_macaw",
        "animals/",
    ),
    _gcompris(
        "explore_world_music",
        "italy america australia japan orchestra africa ireland mexico middleeast",
        "music/",
    ),
    _gcompris("clickgame", "sea2 sea3 sea4 sea6", ""),
    Source(
        package="mate-backgrounds",
        folder="usr/share/backgrounds/mate/nature",
        names="Aqua Blinds Dune FreshFlower Garden GreenMeadow LadyBird RainDrops Storm TwoWings"
        " Wood YellowFlower",
        source_prefix="nature/",
    ),
    Source(
        package="plasma-workspace-wallpapers",
        folder="usr/share/wallpapers",
        names="BytheWater ColdRipple ColorfulCups DarkestHour EveningGlow FallenLeaf Grey Kite"
        " OneStandsOut Path summer_1am",
        suffix="/contents/images/2560x1600.jpg",
    ),
    Source(
        package="lomiri-wallpapers-16.04",
        folder="usr/share/backgrounds",
        names="Bridge_by_Sander_Klootwijk Dragonfly_by_Bolly Picture_0B_by_freespace"
        " Picture_1A_by_freespace Wine_by_Jakkub_Mede aitzgorri_by_Aitzol_Berasategi"
        " friends_by_Aitzol_Berasategi greentock_by_Peter_Nerlich life_by_Aitzol_Berasategi"
        " picosdeeuropa_by_Aitzol_Berasategi seeding_by_Clements_Engelhardt"
        " sunset_by_Aitzol_Berasategi",
        source_prefix="16.04/",
    ),
    Source(
        package="lomiri-wallpapers-20.04",
        folder="usr/share/backgrounds",
        names="Kleiber_by_Lukas_Baubkus",
        source_prefix="20.04/",
    ),
    Source(
        package="opencv-doc",
        folder="usr/share/doc/opencv-doc/examples/data",
        names="aero1 aloeL apple board building ela_original fruits leuvenA orange squirrel_cls"
        " stuff",
        source_prefix="samples/data/",
    ),
    Source(
        package="opencv-doc",
        folder="usr/share/doc/opencv-doc/examples/data",
        names="rubberwhale1",
        suffix=".png",
        source_prefix="samples/data/",
    ),
    Source(
        package="opencv-doc",
        folder="usr/share/doc/opencv-doc/examples/text",
        names="scenetext01 scenetext02 scenetext03 scenetext04 scenetext05 scenetext06"
        " scenetext_segmented_word01 scenetext_segmented_word02 scenetext_segmented_word03"
        " scenetext_segmented_word04",
        source_prefix="contrib/modules/text/samples/",
    ),
)

HELD_OUT = {
    "erase": "kingfisher cheetah red_panda chamaeleon kitten meerkats",
    "explore_farm_animals": "chicken dog",
    "explore_world_animals": "giraffe hedgehog jaguar",
    "explore_monuments": (
        "hawaMahal chateaudeChambord neuschwansteinCastle colosseum berlinCathedral"
        " citedeCarcassonne greatWallofChina mountRushmore"
    ),
    "explore_world_music": "mexico orchestra italy australia",
    "mate-backgrounds": "LadyBird YellowFlower",
    "plasma-workspace-wallpapers": "EveningGlow OneStandsOut",
    "lomiri-wallpapers-16.04": (
        "Picture_1A_by_freespace picosdeeuropa_by_Aitzol_Berasategi life_by_Aitzol_Berasategi"
    ),
    "opencv-doc": "scenetext01 scenetext06 scenetext_segmented_word03",
}
"""Photos for testing, by ``Source.group``: animals, buildings, people, landscapes, text."""


def is_held_out(key: str) -> bool:
    """Whether the photo ``group/name`` is kept for testing."""
    group, _, name = key.partition("/")
    return name in HELD_OUT.get(group, "").split()
