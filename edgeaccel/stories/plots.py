"""What the stories tell: plots, each a dictionary of what may happen and of the sentences that tell it.

A sentence may have choices, ``[a|b]``, and names of what stays the same for a whole story, ``{hero}``: those of
`edgeaccel.stories.generator.Cast`, and the plot's own, of which `variants` gives one set of values each. Nobody but the
hero and the helper is ever `he` or `she`, so that a pronoun always has somebody whom it can mean.

    heroes, helpers    kinds that the plot makes sense with
    traits, places     what the hero is like and where it happens
    wish ... lesson    beats, in the order of `generator.BEATS`: alternatives, of which a story has one
"""

__all__ = ["PLOTS"]

ANY = "girl boy fox rabbit mouse cat dog pig hedgehog squirrel lamb bear"
SMALL = "girl boy fox rabbit mouse cat dog pig hedgehog lamb"
NO_CLIMBERS = "girl boy fox rabbit mouse dog pig hedgehog lamb"
FLY = "bird owl crow"
SWIM = "duck otter frog turtle"
STRONG = "horse cow goat donkey"

PLOTS = {
    "tree": {
        "heroes": NO_CLIMBERS,
        "helpers": FLY,
        "traits": "playful happy cheerful",
        "places": ["the hill", "the forest", "the park", "the meadow"],
        "variants": [{"thing": "kite"}, {"thing": "balloon"}, {"thing": "paper plane"}, {"thing": "hat"}],
        "wish": [
            "[One day|One sunny day|One windy morning], {hero} took {his} {color} {thing} to {place}."
            " {He} wanted to play [in the wind|all day|there until lunch].",
            "{hero} had a [new|pretty] {color} {thing}. [One day|One windy day], {he} went to {place} to play with it.",
            "{hero} got a {color} {thing} for {his} birthday. [The next day|One morning], {he} ran to {place} to play"
            " with it.",
        ],
        "problem": [
            "[Suddenly|But then], a [big|strong] wind blew. The {thing} flew up, up, up and got stuck in a tall tree.",
            "But the wind was [very|too] strong. It took the {thing} and carried it to the top of a tall tree.",
        ],
        "attempt": [
            "{hero} jumped [as high as {he} could|again and again], but the tree was too tall.",
            "{hero} shook the tree, but the {color} {thing} did not [fall|come] down.",
            "{hero} tried to climb the tree, but {he} [slipped and fell on the grass|could not hold on].",
        ],
        "tell": [
            '"My {color} {thing} is stuck in the tree," said {hero}. "I cannot [reach it|get it down]."',
            '"The wind took my {thing}," said {hero}. "Now it is [too high for me|at the top of the tree]."',
        ],
        "plan": [
            '"Do not worry," said {helper}. "I can fly[| up there]."',
            '"I have wings," said {helper}. "I will get it for you."',
        ],
        "solution": [
            "{helper} flew to the top of the tree, took the {thing}, and brought it down to {hero}.",
            "{helper} flew up high, pulled the {color} {thing} out of the tree, and dropped it [softly|gently] into"
            " {hero}'s [arms|hands].",
        ],
        "end": [
            "[After that|Then], {hero} and {helper} played with the {color} {thing} until the sun went down.",
            "{hero} held the {thing} tight. [All afternoon|That day], {he} and {helper} played together.",
        ],
        "lesson": ["it is good to ask for help", "a friend can do what you cannot do alone"],
    },
    "water": {
        "heroes": SMALL,
        "helpers": SWIM,
        "traits": "playful happy cheerful",
        "places": ["the river", "the lake", "the pond"],
        "variants": [{"thing": "ball"}, {"thing": "toy boat"}, {"thing": "bucket"}, {"thing": "shoe"}],
        "wish": [
            "[One day|One warm day|One sunny morning], {hero} went to {place} with {his} {color} {thing}."
            " {He} wanted to play [by the water|in the sun].",
            "{hero} loved {his} {color} {thing} more than anything. [One day|One warm day], {he} took it to {place}.",
        ],
        "problem": [
            "[But then|Suddenly], {hero} slipped, and the {thing} fell into the water. It [began to float|floated]"
            " away.",
            "But the {thing} fell into {place}, and the water [carried|took] it away.",
        ],
        "attempt": [
            "{hero} tried to reach it with a [long|big] stick, but the stick was too short.",
            "{hero} ran along the [water|grass] to catch it, but the {color} {thing} was too far away.",
            "{hero} could not swim, and the water was [deep|cold].",
        ],
        "tell": [
            '"My {color} {thing} fell into the water," said {hero}. "I cannot [swim|get it back]."',
            '"I lost my {thing}," said {hero}. "The water took it, and I [cannot swim|do not know what to do]."',
        ],
        "plan": [
            '"I can swim [very well|fast]," said {helper}. "Wait here."',
            '"Do not worry," said {helper}. "I love to swim."',
        ],
        "solution": [
            "{helper} jumped into the water, swam to the {thing}, and pushed it back to {hero}.",
            "With a big splash, {helper} swam out and brought the {color} {thing} back.",
        ],
        "end": [
            "{hero} dried the {thing} in the sun. Then {he} and {helper} played [with it all day|by {place}] together.",
            "[After that|Then], {hero} and {helper} played with the {color} {thing}, far away from the [deep|cold]"
            " water.",
        ],
        "lesson": ["it is good to be careful near the water", "friends help each other", "it is good to ask for help"],
    },
    "cake": {
        "heroes": ANY,
        "helpers": "",
        "traits": "kind sweet helpful",
        "places": ["the farm", "the village", "the meadow"],
        "variants": [
            {"food": food, "item": item, "gift": gift, "helpers": helpers}
            for food in ("cake", "pie", "bread")
            for item, gift, helpers in (
                ("eggs", "three fresh eggs", "hen"),
                ("milk", "a big cup of milk", "cow goat"),
                ("honey", "a jar of sweet honey", "bee"),
            )
        ],
        "wish": [
            "[One day|One morning], {hero} wanted to bake {a_food} for {his} mother. It was a surprise.",
            "It was the birthday of {his} [mother|grandma]. {hero} wanted to bake {a_food} for the party.",
        ],
        "problem": [
            "But {he} had no {item} [left|at home]. Without {item}, {he} could not make the {food}.",
            "{He} looked in the kitchen, but {he} could not find any {item}.",
        ],
        "attempt": [
            "{hero} looked [in every box|on every shelf], but {he} did not find any {item}.",
            "{hero} went to the shop, but the shop was closed[| that day].",
        ],
        "tell": [
            '"I want to bake {a_food}," said {hero}, "but I have no {item}."',
            '"I need {item} for my {food}," said {hero}, "but I cannot find any."',
        ],
        "plan": [
            '"I have a lot of {item}," said {helper}. "You can have some."',
            '"You need {item}?" said {helper}. "I can give you some."',
        ],
        "solution": [
            "{helper} gave {hero} {gift}. {hero} ran home and baked the {food} [at once|that same day].",
            "{helper} came back with {gift}, and {hero} ran home. Soon the {food} was in the oven.",
        ],
        "end": [
            "The {food} was warm and sweet. {hero} gave the first piece to {helper}, and [everyone was happy|they all"
            " ate"
            " together].",
            "[Everyone|The whole family] loved the {food}. {hero} shared it with {helper} too.",
        ],
        "lesson": ["food is best when you share it", "a kind friend is better than any {food}", "it is good to share"],
    },
    "lost": {
        "heroes": SMALL,
        "helpers": "owl deer crow bird",
        "traits": "curious playful brave",
        "places": ["the forest", "the village", "the hill"],
        "variants": [{"thing": "butterfly"}, {"thing": "leaf"}, {"thing": "feather"}],
        "wish": [
            "[One day|One morning|One sunny day], {hero} saw a pretty {color} {thing} in the air. {He} wanted to"
            " catch it.",
            "[One day|One morning], a {color} {thing} [flew|danced] past the window. {hero} ran outside to catch it.",
        ],
        "problem": [
            "{He} followed the {thing} deep into the [trees|woods]. Soon {he} did not know the way home.",
            "{hero} ran and ran after the {thing}. When {he} stopped, [nothing looked the same|{he} was lost in the"
            " woods].",
        ],
        "attempt": [
            "{hero} looked left and right, but [all the trees looked the same|there was no path].",
            '{hero} called, "[Hello|Mama]!" But nobody [heard {him}|answered]. It was getting dark.',
            "{hero} walked in a big circle and came back to the same tree.",
        ],
        "tell": [
            '"I followed a {color} {thing}, and now I am lost," said {hero}. "I want to go home."',
            '"I do not know the way home," said {hero}. "I ran after a {thing}."',
        ],
        "plan": [
            '"I know these woods [very well|best]," said {helper}. "Follow me."',
            '"Do not be afraid," said {helper}. "I will show you the way."',
        ],
        "solution": [
            "{helper} went first, and {hero} stayed close behind. Soon {he} could see the lights of {his} house.",
            "{helper} led {hero} out of the woods, past the big rock and over the [stream|hill], all the way home.",
        ],
        "end": [
            "{His} mother [ran out and hugged {him}|hugged {him} at the door]. {helper} got a warm"
            " [cup of tea|bowl of soup].",
            "{hero} was [home|safe] at last. {His} mother made soup for {hero} and {helper}.",
        ],
        "lesson": ["it is good to stay close to home", "you should always look where you go"],
    },
    "dark": {
        "heroes": ANY,
        "helpers": "owl firefly bat",
        "traits": "shy quiet gentle",
        "places": ["the forest", "the hill", "the village", "the farm"],
        "wish": [
            "Every night, {hero} wanted to sleep, but {he} was afraid of the dark.",
            "One night, {hero} could not sleep. {He} did not like the dark.",
        ],
        "problem": [
            "[Suddenly|That night], there was a [strange|funny] noise outside the window. {hero} hid under the"
            " [blanket|bed].",
            "The room was very dark, and {he} saw a big shadow on the wall.",
        ],
        "attempt": [
            "{hero} closed {his} eyes and counted to ten, but {he} was still [afraid|scared].",
            "{hero} tried to sing a song, but {his} voice was too [small|quiet].",
        ],
        "feel": [
            "{His} heart went boom, boom, boom.",
            "{hero} did not know what to do.",
            "{hero} [began to cry|cried a little].",
        ],
        "tell": [
            '"I am afraid of the dark," said {hero}. "I [cannot sleep|want the sun to come back]."',
            '"It is too dark," said {hero}. "I heard a noise, and I am scared."',
        ],
        "plan": [
            '"The night is [beautiful|my best friend]," said {helper}. "Come to the window and look."',
            '"There is nothing to be afraid of," said {helper}. "Let me show you the night."',
        ],
        "solution": [
            "{hero} looked out. {He} saw the [big|round] moon and many [bright|tiny] stars. It was not scary at all.",
            "Together they looked at the sky. The moon was round, and the stars were bright. How beautiful it was!",
        ],
        "end": [
            "[Then|After that], {hero} went back to bed. {helper} stayed at the window until {he} fell asleep.",
            "{hero} smiled and closed {his} eyes. Soon {he} was asleep, and {he} had a sweet dream.",
        ],
        "lesson": ["the dark is not so scary with a friend", "being brave means to try even when you are afraid"],
    },
    "learn": {
        "heroes": "girl boy fox rabbit mouse cat dog pig hedgehog lamb bear",
        "helpers": "",
        "traits": "brave cheerful happy",
        "places": ["the village", "the lake", "the park", "the farm"],
        "variants": [
            {
                "skill": "ride a bike",
                "helpers": "donkey goat",
                "hurt": "fell off the bike",
                "did": "rode the bike all around {place}",
            },
            {
                "skill": "swim",
                "helpers": "turtle duck goose",
                "hurt": "swallowed a lot of water",
                "did": "swam across the pond",
            },
            {
                "skill": "dance",
                "helpers": "goose goat owl",
                "hurt": "tripped over {his} own feet",
                "did": "danced all around {place}",
            },
            {"skill": "skate", "helpers": "goose donkey", "hurt": "fell on the ice", "did": "skated in a big circle"},
            {
                "skill": "play the drum",
                "helpers": "owl goat donkey",
                "hurt": "dropped the sticks",
                "did": "played the drum for everyone",
            },
        ],
        "wish": [
            "More than anything, {hero} wanted to learn to {skill}.",
            "[One day|One morning], {hero} wanted to learn to {skill}. {He} was sure it was [easy|fun].",
        ],
        "problem": [
            "But it was very hard. The first time, {he} {hurt}.",
            "But when {he} tried, {he} {hurt}. [Some children|The others] laughed.",
        ],
        "attempt": [
            "{hero} tried again, but {he} {hurt} once more.",
            '"I will never learn it," thought {hero}.',
        ],
        "tell": [
            '"I want to {skill}, but I cannot do it," said {hero}.',
            '"I tried to {skill}," said {hero}, "but it is too hard for me."',
        ],
        "plan": [
            '"Nobody can do it the first time," said {helper}. "Let us [try|do it] together, very slowly."',
            '"I could not do it at first either," said {helper}. "I will teach you."',
        ],
        "solution": [
            "{helper} showed {hero} what to do, step by step. They tried it every day, and each day it was a little"
            " easier.",
            "{hero} tried once, twice, and three times. {helper} [stayed close|clapped every time]. The next day, it"
            " was"
            " much easier.",
        ],
        "end": [
            "[At last|Soon], {hero} {did}. {helper} [cheered|was very proud].",
            'One week later, {hero} {did}. "Look at me!" {he} called, and {helper} [cheered|laughed with joy].',
        ],
        "lesson": ["you should never give up", "hard things get easier when you keep trying"],
    },
    "share": {
        "heroes": "girl boy fox rabbit mouse pig hedgehog squirrel bear",
        "helpers": "bird mouse duck goat mole",
        "traits": "greedy proud clever",
        "places": ["the forest", "the meadow", "the farm", "the hill"],
        "variants": [{"food": "berries"}, {"food": "apples"}, {"food": "nuts"}, {"food": "cherries"}],
        "wish": [
            "[One day|One morning], {hero} found a big basket of {food} near {place}. {He} wanted to eat them all"
            " alone.",
            "[One day|One autumn day], {hero} picked a whole basket of {food}. {He} wanted to keep them all.",
        ],
        "problem": [
            "{He} hid behind a tree so that nobody could see {him}.",
            "{He} took the basket home and closed the door.",
        ],
        "attempt": [""],
        "feel": [""],
        "meet": [
            "Just then, {a_helper} named {helper} {came}. {helper} was thin and hungry.",
            "Soon {a_helper} named {helper} {came}. {helper} had not eaten all day.",
        ],
        "ask": [
            '"May I have some {food}, please?" asked {helper}.',
            '"I am so hungry," said {helper}. "Can I have a few {food}?"',
        ],
        "tell": [
            '"No! They are [all mine|mine]," said {hero}. {helper} [went away|walked away] with a sad face.',
            '"No, I found them," said {hero}. {helper} looked down and went away.',
        ],
        "plan": [
            "{hero} ate and ate, but the {food} did not taste good. {He} felt [alone|bad|sorry].",
            "Then {hero} sat alone with all the {food}. It was very quiet, and {his} tummy hurt.",
        ],
        "solution": [
            'So {hero} ran after {helper}. "I am sorry," {he} said. "Please come back and eat with me."',
            '"I was wrong," thought {hero}. {He} found {helper} and gave {helper_him} half of the {food}.',
        ],
        "thanks": ['"Thank you!" said {helper}, and [they both smiled|the two sat down together].'],
        "end": [
            "They ate the {food} under a tree and told each other [funny stories|jokes]. Now the {food} tasted"
            " [sweet|great].",
            "They ate together and laughed a lot. {helper} knew where to find more {food}, and they picked them"
            " together.",
        ],
        "lesson": ["it is good to share", "sharing makes everything taste better"],
    },
    "broken": {
        "heroes": "girl boy fox rabbit mouse cat dog pig bear",
        "helpers": "bird mouse owl hen",
        "traits": "playful wild happy",
        "places": ["the village", "the farm", "the forest"],
        "variants": [{"thing": "cup"}, {"thing": "plate"}, {"thing": "vase"}, {"thing": "lamp"}],
        "wish": [
            "[One day|One rainy day], {hero} wanted to play ball in the house.",
            "[One day|One rainy day], {hero} was home alone. {He} ran and jumped [from chair to chair|in every room].",
        ],
        "problem": [
            "[Crash!|Oh no!] {He} hit {his} mother's {color} {thing}, and it broke.",
            "Then {he} bumped into the table. {His} mother's {color} {thing} fell down and broke.",
        ],
        "attempt": [
            "{hero} hid the pieces under the [bed|rug], but {he} did not feel good.",
            "{hero} tried to fix it, but there were too many pieces.",
        ],
        "tell": [
            '"I broke the {color} {thing}," said {hero}. "[Mama will be angry|I am afraid to tell Mama]."',
            '"The {thing} is broken, and it is my fault," said {hero}.',
        ],
        "plan": [
            '"You should tell the truth," said {helper}. "[I will come with you|It is the right thing to do]."',
            '"Tell your mother what happened," said {helper}. "The truth is always best."',
        ],
        "solution": [
            '{hero} went to {his} mother. "I broke your {thing}," {he} said. "I am sorry." {His} mother was not angry'
            " at all.",
            "When {his} mother came home, {hero} told the truth. {His} mother smiled and gave {him} a big hug.",
        ],
        "end": [
            "Together they fixed the {color} {thing} with glue. It [was not perfect, but it was pretty|looked almost"
            " new].",
            "They found some glue and fixed the {thing} together, and {helper} helped too.",
        ],
        "lesson": ["it is always best to tell the truth", "the truth makes your heart feel light"],
    },
    "house": {
        "heroes": ANY,
        "helpers": "beaver bear horse donkey",
        "traits": "helpful brave quiet",
        "places": ["the river", "the forest", "the hill", "the sea"],
        "variants": [{"stuff": "sticks"}, {"stuff": "wood"}, {"stuff": "stones"}, {"stuff": "straw"}],
        "opening": [
            "Once upon a time, there was {a_hero} named {hero}. {He} was {trait} and loved to {hobby}.",
            "Once upon a time, there was {a_hero} named {hero}.",
            "Once there was {a_hero} named {hero}. {hero} was very {trait}.",
            "There once was a {trait} {kind} named {hero}. {He} loved to {hobby}.",
        ],
        "home": ["{He} loved {place} more than any other place.", "{He} loved to {hobby}[| every day]."],
        "wish": [
            "{hero} wanted to build a little house of {stuff} with a {color} door. {He} worked [hard|all week], and"
            " soon it"
            " was done.",
            "[One day|One spring], {hero} built a house of {stuff}. It had a {color} door and a round window.",
        ],
        "problem": [
            "But that night, a [big|terrible] storm came. The wind blew and blew until the house fell down.",
            "Then the rain came, and the wind was so strong that the house fell down. Only the {color} door was left.",
        ],
        "attempt": [
            "{hero} picked up the {stuff}, but everything was wet, and {he} was so tired.",
            "{hero} tried to build it again, but the wind [was too strong|blew it down again].",
        ],
        "tell": [
            '"The storm took my house," said {hero}. "I have no place to sleep."',
            '"My house fell down," said {hero}. "I cannot build it again alone."',
        ],
        "plan": [
            '"I am [strong|good at building]," said {helper}. "We can build it together."',
            '"Do not cry," said {helper}. "Two can build faster than one."',
        ],
        "solution": [
            "{helper} carried the heavy {stuff}, and {hero} put everything in place. They worked until the sun went"
            " down.",
            "All day long, {hero} and {helper} worked side by side. They made the walls [thick|strong] and put the"
            " {color}"
            " door back in.",
        ],
        "end": [
            "The new house was big and strong. When the next storm came, {hero} and {helper} sat inside and drank tea.",
            "That night, the wind blew again, but the new house did not fall. {hero} slept well.",
        ],
        "lesson": ["work is easier with a friend", "together we are strong"],
    },
    "lonely": {
        "heroes": ANY,
        "helpers": "duck goat goose deer donkey",
        "traits": "shy quiet gentle",
        "places": ["the village", "the park", "the meadow", "the lake"],
        "variants": [{"thing": "ball"}, {"thing": "rope"}, {"thing": "drum"}, {"thing": "swing"}],
        "wish": [
            "{hero} was new near {place} and did not know anyone. {He} wanted to have a friend.",
            "{hero} had many toys, but {he} had no friends. More than anything, {he} wanted a friend.",
        ],
        "problem": [
            "[Every day|Each day], {he} saw the others play at {place}, but {he} was too shy to say hello.",
            "{He} went to {place}, but {he} did not know what to say, so {he} hid behind a tree.",
        ],
        "attempt": [
            "{hero} took one step, then another. But {his} voice was so quiet that nobody heard {him}.",
            "{hero} opened {his} mouth to speak, but no words came out.",
        ],
        "meet": [
            "Then {a_helper} named {helper} {came} with a {color} {thing}.",
            "At {place}, there was {a_helper} named {helper}. {helper} had a {color} {thing}, but nobody to play with.",
        ],
        "ask": [
            '"Hello! Why are you [all alone|hiding]?" asked {helper}.',
            '"Hello, little {kind}! What are you doing here?" asked {helper}.',
        ],
        "tell": [
            '"I want to play," said {hero}, "but I am [shy|too shy to ask]."',
            '"I am new here," said {hero} in a small voice. "I have no friends."',
        ],
        "plan": [
            '"I am shy too," said {helper}. "Do you want to play with my {color} {thing}?"',
            '"Then I will be your friend," said {helper}. "Come and play with my {thing}!"',
        ],
        "solution": [
            "{hero} smiled a big smile. They played with the {color} {thing} all afternoon.",
            "First {helper} played with the {thing}, and then it was {hero}'s turn. They laughed and laughed.",
        ],
        "thanks": [
            '"Thank you for being so kind," said {hero}.',
            '"You are the best friend I ever had," said {hero}.',
        ],
        "end": [
            "The next day, [the others|more children] came too, and {hero} was not shy any more.",
            "The next day, {hero} came back to {place}, and {helper} was already there with the {color} {thing}.",
        ],
        "lesson": ["one kind word can make a friend", "it is good to say hello first"],
    },
    "find": {
        "heroes": ANY,
        "helpers": "crow mole mouse hen frog",
        "traits": "careful kind sweet",
        "places": ["the meadow", "the park", "the village", "the farm"],
        "variants": [
            {"thing": thing, "spot": spot}
            for thing in ("key", "ring", "bell", "coin")
            for spot in ("under a big leaf", "behind a rock", "in the tall grass", "under the old bench")
        ],
        "wish": [
            "{hero} had a [little|shiny] gold {thing}. It was a gift from {his} grandma. {He} wanted to keep it"
            " forever.",
            "{His} grandma gave {hero} a shiny gold {thing}. {He} took it everywhere {he} went.",
        ],
        "problem": [
            "But [one day|one evening], the {thing} was gone. It was not in {his} [pocket|bag].",
            "[One day|One morning], {hero} played at {place}. When {he} came home, the {thing} was gone.",
        ],
        "attempt": [
            "{hero} looked under the bed and behind the door, but {he} could not find it.",
            "{hero} looked here and there. {He} looked [all day|everywhere], but there was no {thing}.",
        ],
        "tell": [
            '"I lost my gold {thing}," said {hero}. "I looked everywhere."',
            '"My {thing} is gone," said {hero}. "It was a gift from my grandma."',
        ],
        "plan": [
            '"I have good eyes," said {helper}. "Let us look together."',
            '"Where did you play today?" asked {helper}. "Let us go back and look there."',
        ],
        "solution": [
            'They looked slowly, step by step. "[Here|Look]!" called {helper}. The gold {thing} was {spot}!',
            "They went back to {place}. Something was shining {spot}. It was the {thing}!",
        ],
        "end": [
            "{hero} put the {thing} on a string so that {he} would never lose it again.",
            "{hero} held the gold {thing} in the sun, and it was [bright|shiny] like a star. {helper} was happy too.",
        ],
        "lesson": ["four eyes see more than two", "you should take good care of your things"],
    },
    "garden": {
        "heroes": ANY,
        "helpers": "mole bee owl hen",
        "traits": "cheerful curious happy",
        "places": ["the farm", "the village", "the hill"],
        "variants": [
            {"plant": "flower", "grown": "a tall yellow flower"},
            {"plant": "pumpkin", "grown": "a big round pumpkin"},
            {"plant": "carrot", "grown": "a long orange carrot"},
            {"plant": "rose", "grown": "a beautiful red rose"},
        ],
        "wish": [
            "[One spring|One day], {hero} got a tiny seed. {He} wanted to grow a {plant} in the garden.",
            "{hero} wanted to have a {plant}. So [one spring|one morning], {he} put a seed into the ground.",
        ],
        "problem": [
            "The next day, {he} ran to the garden, but there was nothing to see. The day after, there was still no"
            " {plant}.",
            "{He} waited one day and two days, but no {plant} came out of the ground.",
        ],
        "attempt": [
            '"[Grow, seed, grow|Please grow]!" called {hero}. But nothing happened.',
            "{hero} sang a song for the seed, but the {plant} did not come.",
        ],
        "tell": [
            '"I want a {plant}, but my seed does not grow," said {hero}.',
            '"I waited so long," said {hero}. "Where is my {plant}?"',
        ],
        "plan": [
            '"A seed needs time," said {helper}. "Give it water every day and wait."',
            '"It is asleep under the ground," said {helper}. "It needs sun and water and a little time."',
        ],
        "solution": [
            "So {hero} gave the seed water every morning. {He} waited and waited. One day, there was a tiny green"
            " leaf.",
            "Every day, {hero} brought water, and {helper} [came to look|helped]. After many days, something green"
            " came up.",
        ],
        "end": [
            "In the summer, {hero} had {grown}. It was the best one near {place}.",
            "The leaf grew and grew until it was {grown}. {hero} danced around it with {helper}.",
        ],
        "lesson": ["good things need time", "it is good to wait"],
    },
    "nest": {
        "heroes": NO_CLIMBERS,
        "helpers": "squirrel cat bear",
        "traits": "kind gentle helpful",
        "places": ["the forest", "the park", "the meadow"],
        "wish": [
            "[One day|One spring morning], {hero} went for a walk near {place}. Under a tree, {he} found a baby bird.",
            "[One day|One morning], {hero} heard a tiny sound. A baby bird sat in the grass, far from its nest.",
        ],
        "problem": [
            "The baby bird was too small to fly. Its nest was high up in the tree.",
            "The baby bird was cold and could not fly. {hero} wanted to put it back, but the nest was very high.",
        ],
        "attempt": [
            "{hero} tried to climb the tree, but {he} [slid down|fell down] again and again.",
            "{hero} stood on a rock and made {himself} tall, but {he} could not reach the nest.",
        ],
        "tell": [
            '"This baby bird fell out of its nest," said {hero}. "I cannot climb so high."',
            '"The baby bird wants to go home," said {hero}, "but the nest is too high for me."',
        ],
        "plan": [
            '"I can climb [any tree|very well]," said {helper}. "Give the little bird to me."',
            '"I am a good climber," said {helper}. "Let me help."',
        ],
        "solution": [
            "{helper} took the baby bird and climbed up, slowly and carefully. Soon it was back in its nest.",
            "Very gently, {helper} carried the baby bird up the tree and put it into the nest.",
        ],
        "end": [
            "The mother bird came back and sang the sweetest song for {hero} and {helper}.",
            "Every morning after that, the birds sang a song at {hero}'s window.",
        ],
        "lesson": ["even the smallest ones need a friend", "it is good to be kind to those who are small"],
    },
    "bridge": {
        "heroes": SMALL,
        "helpers": "horse turtle beaver bear",
        "traits": "kind brave sweet",
        "places": ["the river"],
        "variants": [
            {"gift": "a basket of apples"},
            {"gift": "a jar of honey"},
            {"gift": "a warm pie"},
            {"gift": "some flowers"},
        ],
        "wish": [
            "[One day|One morning], {hero} wanted to visit {his} grandma on the other side of the river. {He} took"
            " {gift} with {him}.",
            "{His} grandma was [sick|ill] in bed. So {hero} went to visit {his} grandma with {gift}.",
        ],
        "problem": [
            "But when {he} came to the river, the bridge was broken.",
            "But the rain had taken the bridge away, and the river was wide and deep.",
        ],
        "attempt": [
            "{hero} put one foot into the water, but it was too cold and too fast.",
            "{hero} walked up and down the river, but there was no other way.",
        ],
        "tell": [
            '"I want to bring my grandma {gift}," said {hero}, "but the bridge is broken."',
            '"I must get to the other side," said {hero}. "My grandma is waiting for me."',
        ],
        "plan": [
            '"[Sit|Climb] on my back," said {helper}. "I will take you across."',
            '"The river is not too deep for me," said {helper}. "I can carry you."',
        ],
        "solution": [
            "{hero} sat on the back of {helper} and held on tight. Soon they were on the other side.",
            "Step by step, {helper} carried {hero} through the water. {hero} did not even get wet.",
        ],
        "end": [
            "{His} grandma was so happy to see {him}. They all had tea with {helper}.",
            "{hero} gave the gift to {his} grandma, and they all sat by the fire and told stories.",
        ],
        "lesson": ["there is always a way when you have a friend", "friends help each other"],
    },
    "snow": {
        "heroes": ANY,
        "helpers": "rabbit goat deer donkey",
        "traits": "cheerful happy playful",
        "places": ["the village", "the hill", "the forest", "the farm"],
        "variants": [
            {"item": "nose", "part": "carrot"},
            {"item": "hat", "part": "old black hat"},
            {"item": "scarf", "part": "warm scarf"},
        ],
        "wish": [
            "One winter day, everything was white. {hero} wanted to make a [big|round] snowman.",
            "One winter morning, there was snow [on every tree|everywhere]. {hero} ran outside to make a snowman.",
        ],
        "problem": [
            "The snowman was tall and round, but something was missing. It had no {item}!",
            "{He} rolled two big balls of snow. But then {he} saw that there was no {item} for the snowman.",
        ],
        "attempt": [
            "{hero} looked for a {item} in the house, but {he} did not find one.",
            "{hero} tried to make a {item} out of snow, but it fell off.",
        ],
        "tell": [
            '"My snowman has no {item}," said {hero}. "It looks so sad."',
            '"I need a {item} for my snowman," said {hero}.',
        ],
        "plan": [
            '"Look, I have {a_part}," said {helper}. "Your snowman can have it."',
            '"Wait here," said {helper}. "I have {a_part} at home."',
        ],
        "solution": [
            "{helper} gave {hero} the {part}, and it was just right. Now the snowman had a {item}.",
            "Together they put the {part} on the snowman. What a fine {item} it was!",
        ],
        "end": [
            "{hero} and {helper} danced around the snowman until it was dark. Then they drank hot milk.",
            "The snowman stood near {place} all winter, and {hero} and {helper} played there every day.",
        ],
        "lesson": ["a small gift can make a big smile", "it is good to share", "everything is more fun with a friend"],
    },
    "race": {
        "heroes": "girl boy fox rabbit cat dog pig lamb",
        "helpers": "turtle mouse frog hedgehog duck",
        "traits": "fast proud brave",
        "places": ["the hill", "the meadow", "the park", "the forest"],
        "variants": [{"prize": "medal"}, {"prize": "cup"}, {"prize": "cake"}, {"prize": "crown"}],
        "wish": [
            "[One day|One summer day], there was a big race at {place}. {hero} wanted to win the {prize}.",
            "Every year, there was a race to {place}. This year, {hero} wanted to win the {prize}.",
        ],
        "problem": [
            "{He} ran as fast as {he} could, and soon {he} was first.",
            "One, two, three, go! {hero} ran like the wind. Nobody was faster.",
        ],
        "attempt": [""],
        "feel": [""],
        "meet": [
            "But then {he} saw {a_helper} named {helper} on the ground. {helper} had a hurt foot.",
            "But on the way, there was {a_helper} named {helper}. {helper} was stuck in the mud.",
        ],
        "ask": ['"Please help me," said {helper}.', '"Can you help me, little {kind}?" asked {helper}.'],
        "tell": [
            '{hero} wanted to win the {prize}. But {he} stopped. "I will help you," {he} said.',
            '"If I stop now, I will not get the {prize}," thought {hero}. But {he} could not run away.',
        ],
        "plan": [
            "{hero} took {helper} by the hand and helped {helper_him} up.",
            "{hero} put {helper} on {his} back and walked on, step by step.",
        ],
        "solution": [
            "They came in last. The others had won the {prize}, but {hero} did not mind.",
            "When they came to the end, the race was over. {hero} did not win the {prize}.",
        ],
        "thanks": [
            '"Thank you," said {helper}. "You are the [best|kindest] {kind} I know."',
            '"You did not win the race," said {helper}, "but you won a friend."',
        ],
        "end": [
            "Then everyone [clapped|cheered] for {hero}, and {he} felt better than any winner.",
            "{hero} and {helper} went home together. They were friends from then on.",
        ],
        "lesson": ["being kind is better than being first", "a friend is worth more than a prize"],
    },
    "heavy": {
        "heroes": SMALL,
        "helpers": STRONG,
        "traits": "helpful clever cheerful",
        "places": ["the farm", "the hill", "the meadow"],
        "variants": [
            {"food": "pumpkin", "dish": "soup"},
            {"food": "melon", "dish": "juice"},
            {"food": "turnip", "dish": "stew"},
        ],
        "wish": [
            "[One day|One autumn day], {hero} found a giant {food} near {place}. {He} wanted to take it home.",
            "All summer, a {food} grew in {hero}'s field. Now it was giant, and {he} wanted to bring it home.",
        ],
        "problem": [
            "But the {food} was so heavy that {he} could not lift it.",
            "{He} pulled with all {his} strength, but the {food} did not move.",
        ],
        "attempt": [
            "{hero} pushed it and kicked it, but it stayed where it was.",
            "{hero} tried to roll the {food}, but {he} was too small.",
        ],
        "tell": [
            '"This {food} is too heavy for me," said {hero}. "I want to make {dish} for everyone."',
            '"I cannot move my {food}," said {hero}. "It is bigger than I am!"',
        ],
        "plan": [
            '"I am big and strong," said {helper}. "Get a rope, and I will pull."',
            '"I have a cart," said {helper}. "We can do it together."',
        ],
        "solution": [
            "{helper} pulled, and {hero} pushed. Slowly, the {food} began to move, all the way to the house.",
            "One, two, three! {helper} and {hero} pulled together, and the {food} rolled home.",
        ],
        "end": [
            "They made a big pot of {dish}. There was enough for {helper} and for everyone near {place}.",
            "That evening, {hero} made {dish} from the {food}, and {helper} had three big bowls.",
        ],
        "lesson": [
            "together we are strong",
            "work is easier with a friend",
            "even the strong and the small can be a team",
        ],
    },
    "star": {
        "heroes": ANY,
        "helpers": "frog owl turtle deer",
        "traits": "curious quiet clever",
        "places": ["the hill", "the lake", "the meadow"],
        "variants": [{"light": "moon"}, {"light": "brightest star"}],
        "wish": [
            "Every night, {hero} looked at the {light}. {He} wanted to touch it.",
            "One night, the sky was very clear. {hero} saw the {light} and wanted to hold it in {his} hands.",
        ],
        "problem": [
            "{He} climbed up on the roof, but the {light} was still far away.",
            "{He} stood on a chair and then on a table, but the {light} was too high.",
        ],
        "attempt": [
            "{hero} jumped and jumped, but {he} could not reach the sky.",
            "{hero} threw a rope, but it came down again.",
        ],
        "tell": [
            '"I want to touch the {light}," said {hero}, "but it is too far away."',
            '"I cannot reach the {light}," said {hero}. "I am too small."',
        ],
        "plan": [
            '"I know a place where the {light} comes down to us," said {helper}. "Come with me."',
            '"You do not have to go up," said {helper}. "Come, I will show you a secret."',
        ],
        "solution": [
            "They walked to a quiet pond. There was the {light}, shining in the water! {hero} put {his} hand in and"
            " touched it.",
            "{helper} took {hero} to the still water of a pond. The {light} was right there, and {he} could touch it.",
        ],
        "end": [
            "They sat by the pond for a long time and looked at the light. {hero} was very happy.",
            "After that, {hero} and {helper} met at the pond every night when the sky was clear.",
        ],
        "lesson": ["beautiful things can be closer than you think", "there is more than one way to reach a dream"],
    },
    "sick": {
        "heroes": ANY,
        "helpers": "goat hen donkey goose cow",
        "traits": "kind sweet gentle",
        "places": ["the village", "the farm", "the forest", "the sea"],
        "variants": [{"gift": "soup"}, {"gift": "flowers"}, {"gift": "honey"}],
        "wish": [
            "{hero} had a good friend, {a_helper} named {helper}. They played together every day.",
            "{hero}'s best friend was {a_helper} named {helper}. They did everything together.",
        ],
        "problem": [
            "But one day, {helper} did not come out to play. {helper} was sick in bed.",
            "[One morning|One day], {hero} waited and waited, but {helper} did not come. {helper} was sick.",
        ],
        "attempt": [
            "{hero} wanted to help, but {he} was not a doctor.",
            "{hero} thought and thought. What could {he} do?",
        ],
        "feel": [""],
        "meet": ["Then {he} had an idea.", "At last, {he} had a [good|great] idea."],
        "ask": [
            '"I will bring {gift} to {helper}," {he} said. "That will help."',
            '"{helper} loves {gift}," {he} said. "I will bring some."',
        ],
        "tell": [
            "{hero} worked all morning to get the {gift} ready. Then {he} went to visit {helper}.",
            "{He} ran home, got the {gift}, and went all the way to {helper}.",
        ],
        "plan": [
            '"How do you feel?" asked {hero}. "I feel so alone," said {helper}.',
            '"Hello, {helper}!" said {hero}. "Look what I have for you."',
        ],
        "solution": [
            "When {helper} saw the {gift}, {helper_he} smiled for the first time in days.",
            "{helper} was so happy about the {gift} that {helper_he} sat up in bed and laughed.",
        ],
        "thanks": [
            '"Thank you, {hero}," said {helper}. "You are a true friend."',
            '"You are so kind," said {helper}. "I feel better already."',
        ],
        "end": [
            "{hero} stayed and read a story. A few days later, {helper} was well again, and they played near {place}.",
            "{hero} came back every day. Soon {helper} could run and play again.",
        ],
        "lesson": ["a true friend is there when you need one", "a little kindness can help a lot"],
    },
    "thorn": {
        "heroes": "girl boy fox rabbit mouse cat hedgehog squirrel lamb",
        "helpers": "bear lion horse wolf",
        "traits": "brave kind gentle",
        "places": ["the forest", "the hill", "the river"],
        "wish": [
            "[One day|One morning], {hero} went to {place} to [pick berries|look for flowers].",
            "[One day|One warm day], {hero} wanted to take a long walk near {place}.",
        ],
        "problem": ["[Suddenly|Then], {he} heard a loud cry.", "Then there was a loud noise behind the trees."],
        "attempt": ["{hero} was afraid, but {he} went closer.", "{hero} wanted to run away, but {he} looked anyway."],
        "feel": [""],
        "meet": [
            "It was {a_helper} named {helper}. {helper} looked strong, but {helper_he} was crying.",
            "There sat {a_helper} named {helper}, as big as a house, with tears in {helper_his} eyes.",
        ],
        "ask": ['"Why are you crying?" asked {hero}.', '"What is wrong?" asked {hero}.'],
        "tell": [
            '"I have a thorn in my foot," said {helper}. "It hurts, and I cannot get it out."',
            '"I stepped on a thorn," said {helper}. "Everyone is afraid of me, so nobody helps."',
        ],
        "plan": [
            '"I am small, but I can help you," said {hero}.',
            '"Hold still," said {hero}. "I will be very careful."',
        ],
        "solution": [
            "{hero} took the thorn and pulled. Out it came! {helper} stopped crying at once.",
            "With {his} little hands, {hero} pulled and pulled until the thorn came out.",
        ],
        "thanks": [
            '"Thank you, little {kind}," said {helper}. "I will never forget this."',
            '"You are small, but your heart is big," said {helper}.',
        ],
        "end": [
            "[A week later|One day], {hero} fell into a deep hole. {helper} heard {him} and pulled {him} out at once.",
            "{helper} let {hero} ride home on {helper_his} back, and everyone waved.",
        ],
        "lesson": [
            "even a small friend can be a great friend",
            "kindness always comes back",
            "it is good to help others",
        ],
    },
    "noise": {
        "heroes": ANY,
        "helpers": "bear owl donkey cow",
        "traits": "cheerful wild happy",
        "places": ["the forest", "the village", "the farm"],
        "variants": [
            {"thing": "drum", "sound": "Boom, boom, boom"},
            {"thing": "horn", "sound": "Toot, toot, toot"},
            {"thing": "bell", "sound": "Ding, ding, ding"},
        ],
        "wish": [
            "{hero} got a {color} {thing} for {his} birthday. {He} wanted to play it all day long.",
            "[One day|One morning], {hero} found an old {color} {thing}. {He} wanted to play music.",
        ],
        "problem": [
            "{sound}! The {thing} was so loud that the birds flew away.",
            '"{sound}!" went the {thing}, early in the morning and late at night.',
        ],
        "attempt": [""],
        "feel": [""],
        "meet": [
            "Soon {a_helper} named {helper} {came}. {helper} looked very tired.",
            "Then {a_helper} named {helper} {came}. {helper} had not slept at all.",
        ],
        "ask": [
            '"Please stop," said {helper}. "I cannot sleep when you play so loud."',
            '"That {thing} is too loud," said {helper}. "My head hurts."',
        ],
        "tell": [
            '"I am sorry," said {hero}. "I did not think of that."',
            '"Oh!" said {hero}. "I only wanted to play a song. I am sorry."',
        ],
        "plan": [
            '"Can you play a soft song?" asked {helper}. "I would like that."',
            '"Your song is nice," said {helper}, "but play it softly, and not at night."',
        ],
        "solution": [
            "So {hero} played the {color} {thing} very softly. It was a sweet song, and {helper} closed {helper_his}"
            " eyes.",
            "{hero} tried it. The soft sound of the {thing} was much nicer than before.",
        ],
        "thanks": [
            '"That is beautiful," said {helper}. "Thank you."',
            '"Thank you, little {kind}," said {helper} with a smile.',
        ],
        "end": [
            "From then on, {hero} played every afternoon, and everyone near {place} came to listen.",
            "Every Sunday, {hero} played a soft song, and {helper} sang along.",
        ],
        "lesson": ["it is good to think of others", "soft music can be the best music"],
    },
    "honest": {
        "heroes": ANY,
        "helpers": "hen goat duck goose mole",
        "traits": "honest kind clever",
        "places": ["the village", "the river", "the park", "the sea"],
        "variants": [{"thing": "ring"}, {"thing": "watch"}, {"thing": "coin"}, {"thing": "necklace"}],
        "wish": [
            "[One day|One morning], {hero} found a shiny {thing} on the path. {He} wanted to keep it.",
            "[One day|One rainy day], {hero} saw something shiny near {place}. It was a gold {thing}! {He} wanted to"
            " take it home.",
        ],
        "problem": [
            "It was the prettiest {thing} {he} had ever seen.",
            "{He} put the {thing} into {his} pocket and smiled.",
        ],
        "attempt": [""],
        "feel": [""],
        "meet": [
            "But on the way home, {he} met {a_helper} named {helper}. {helper} was crying.",
            "Then {he} saw {a_helper} named {helper}, who was looking for something in the grass.",
        ],
        "ask": ['"What is wrong?" asked {hero}.', '"Why are you so sad?" asked {hero}.'],
        "tell": [
            '"I lost my {thing}," said {helper}. "It was a gift from my mother."',
            '"My {thing} is gone," said {helper}. "I have looked for it all day."',
        ],
        "plan": [
            "{hero} felt the {thing} in {his} pocket. {He} wanted to keep it, but {he} knew what was right.",
            "{hero} was quiet for a moment. It was hard, but {he} knew what to do.",
        ],
        "solution": [
            '"Here is your {thing}," said {hero}. "I found it on the path."',
            'So {hero} took out the {thing}. "Is this yours?" {he} asked. "I found it today."',
        ],
        "thanks": [
            '"Yes, that is it!" said {helper}, and {helper_he} danced with joy. "Thank you!"',
            '"Thank you for being so honest," said {helper}, and gave {hero} a hug.',
        ],
        "end": [
            "{helper} asked {hero} to come for tea and cake. They talked until the evening and became good friends.",
            "That night, {hero} had no {thing}, but {he} had a new friend, and {he} slept very well.",
        ],
        "lesson": ["it feels good to be honest", "a friend is worth more than gold"],
    },
    "tidy": {
        "heroes": "girl boy fox rabbit mouse cat dog pig bear",
        "helpers": "mouse hen bird squirrel",
        "traits": "messy wild playful",
        "places": ["the village", "the farm", "the park"],
        "variants": [{"thing": "teddy"}, {"thing": "train"}, {"thing": "robot"}, {"thing": "doll"}],
        "wish": [
            "One evening, {hero} wanted to play with {his} {color} {thing}.",
            "[One day|One rainy day], {hero} wanted to show {his} {color} {thing} to a friend.",
        ],
        "problem": [
            "But {his} room was a big mess. There were toys everywhere, and {he} could not find the {thing}.",
            "But {he} never cleaned {his} room. The {color} {thing} was lost under a mountain of toys.",
        ],
        "attempt": [
            "{hero} threw everything from left to right, but it only got worse.",
            "{hero} looked in one corner and then in another, but there was no {thing}.",
        ],
        "tell": [
            '"I cannot find my {color} {thing}," said {hero}. "It is somewhere in this mess."',
            '"My {thing} is lost in my own room," said {hero}.',
        ],
        "plan": [
            '"Let us clean up," said {helper}. "Then we will find it."',
            '"First put every toy in its place," said {helper}. "I will help you."',
        ],
        "solution": [
            "They put the books on the shelf and the blocks into the box. And there, under a blanket, was the {color}"
            " {thing}!",
            "They worked for an hour and sang a funny song. At last, {helper} found the {thing} behind the bed.",
        ],
        "end": [
            "The room looked so nice now. {hero} and {helper} played with the {color} {thing} until bedtime.",
            "{hero} put the {color} {thing} on the shelf. Now {he} always knew where it was.",
        ],
        "lesson": ["a clean room makes life easier", "everything should have its place"],
    },
}
