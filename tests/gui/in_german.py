"""The extension in a German Blender, and that Blender after it was disabled."""

from __future__ import annotations

import sys
from pathlib import Path

import bpy

sys.path.insert(0, str(Path(__file__).parent))  # of this Blender alone

import hands


def in_german() -> hands.Steps:
    view = bpy.context.preferences.view
    view.language = "de_DE"
    view.use_translate_interface = view.use_translate_tooltips = view.use_translate_reports = True
    yield from hands.install()
    german = hands.module("i18n.german")
    translation = hands.module("i18n.translation")
    iface = bpy.app.translations.pgettext_iface
    hands.seen["wrong"] = [
        text
        for context, words in (("Operator", german.OPERATORS), ("*", german.TEXTS))
        for text, said in words.items()
        if iface(text, context) != said
    ]
    yield from hands.open_tab("VIEW_3D")
    hands.point_at("VIEW_3D")
    hands.press("B", shift=True, alt=True)
    yield 0.5
    bpy.context.scene.motionbooth.subjects[0].class_word = "toy"
    subject = bpy.context.scene.motionbooth.subjects[0].object
    for frame, x in ((1, 0.0), (50, 0.0), (120, 9.0)):
        subject.location.x = x
        subject.keyframe_insert("location", frame=frame)
    yield 1
    yield from hands.picture("german")
    of = hands.module("_protocol.text").Text.of
    frames = of("from frame {first} to {last}", first=1, last=9)
    (template,) = [text for text in german.TEXTS if text.startswith('"{name}" is behind the camera')]
    hands.seen["warning"] = translation.translate(of(template, name="Rex", frames=frames))
    try:
        bpy.ops.motionbooth.add_to_prompt()
        bpy.context.scene.motionbooth.subjects[0].class_word = ""
        bpy.ops.motionbooth.add_to_prompt()
    except RuntimeError as error:
        hands.seen["refusal"] = str(error)
    bpy.ops.preferences.addon_disable(module=hands.MODULE)
    hands.seen["left"] = [text for text, said in german.TEXTS.items() if text.endswith(".") and iface(text) == said]


hands.perform(in_german)
