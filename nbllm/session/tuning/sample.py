"""A plain text of some 650 tokens, of several kinds, on which models are compared and which prompts are made of."""

from __future__ import annotations

TEXT = """\
The old harbour town wakes slowly in the winter. Before the first ferry leaves, a few lights come on in the
bakery by the square, and the smell of warm bread drifts down to the water. Fishermen check their nets under the
lamps and talk about the weather, which has been rough since the new year began. "It will turn by Thursday," one
of them says, and nobody argues, because he has been right more often than the radio.

Most of what people here know about the sea was never written down. A child learns to row before she learns to
read, and by the time she is twelve she can tell from the colour of the clouds whether it is safe to go out
beyond the island. Scientists who came to study the bay were surprised at how well the stories matched their
measurements. The currents really do change direction twice a day near the lighthouse, and the water there is
two degrees colder than it is a mile to the south.

How does a lighthouse work? In the past, a keeper had to light an oil lamp every evening and watch it through
the night. The lamp stood inside a large lens made of many rings of glass, which bent the light into a narrow
beam. A clockwork turned the lens so that ships saw a flash at regular times. Each lighthouse had a pattern of
its own: one might flash every five seconds, and another twice and then pause for ten. A sailor with a chart and
a watch could tell from the pattern where he was. Today the lamps are electric, and a computer switches them on
and off, but the patterns have stayed the same for more than a hundred years.

To visit the tower, take the path that begins behind the church. Follow these steps:

1. Walk along the wall until you reach the gate.
2. Close the gate behind you, because of the sheep.
3. Climb the stairs, all 214 of them, and do not hurry.

The ticket costs 4 euros for adults and nothing for children under six. If three adults and two small children
go together, they pay 12 euros in total. The tower is open from April to October, between ten in the morning and
five in the afternoon. On a clear day the view reaches as far as the mountains, about 60 kilometres away.

Dear Anna,

Thank you for your letter and for the photographs. We were all very happy to hear that the house is finally
finished and that you like the new kitchen. I wish we could come for the holidays, but Peter has to work until
the end of December, and the trains are expensive at that time of year. Perhaps you could visit us in the spring
instead? The garden is at its best in May.

With love from all of us,
Maria
"""
