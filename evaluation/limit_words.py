"""What people in a generated LIMIT dataset like, and what they are called; written for this project.

Every attribute has a distinctive word that no other attribute holds, in any inflection: so a query about one names its
documents without doubt. The heads ("Tea" in "Jasmine Tea") are shared, as words of real attributes are.
"""

from collections.abc import Mapping
from functools import cache

_ALONE = """
Aardvarks Albatrosses Alligators Alpacas Anteaters Antelopes Armadillos Baboons Badgers Barracudas Bats Bears Beavers
Beetles Bison Boars Buffaloes Bumblebees Butterflies Buzzards Camels Capybaras Cardinals Caribou Caterpillars Catfish
Chameleons Cheetahs Chickadees Chimpanzees Chinchillas Chipmunks Cicadas Clams Cobras Cockatoos Condors Cormorants
Coyotes Crabs Crayfish Crickets Crocodiles Crows Cuckoos Deer Dingoes Dolphins Dormice Doves Dragonflies Ducks Eagles
Echidnas Eels Egrets Elephants Elks Emus Falcons Ferrets Finches Flamingos Foxes Frogs Gazelles Geckos Geese Gerbils
Gibbons Giraffes Goats Gophers Gorillas Grasshoppers Grouse Gulls Guppies Hamsters Hares Hawks Hedgehogs Herons
Hornets Hummingbirds Hyenas Ibexes Iguanas Impalas Jackals Jaguars Jellyfish Kangaroos Kingfishers Koalas Krill
Lemmings Lemurs Leopards Lions Lizards Llamas Lobsters Locusts Lynxes Macaws Magpies Mammoths Manatees Mandrills
Mantises Marmots Meerkats Minnows Moles Mongooses Moths Mules Narwhals Newts Nightingales Ocelots Octopuses Opossums
Orangutans Ospreys Ostriches Otters Owls Oxen Oysters Pandas Pangolins Panthers Parrots Partridges Peacocks Pelicans
Penguins Pheasants Piranhas Platypuses Porcupines Porpoises Puffins Pumas Pythons Quails Quokkas Raccoons Ravens
Reindeer Rhinos Roadrunners Robins Salamanders Sandpipers Scallops Scorpions Seahorses Seals Sharks Sheep Shrews
Shrimps Skunks Sloths Snails Sparrows Spiders Squid Squirrels Starfish Starlings Stingrays Storks Swallows Swans
Tadpoles Tapirs Tarantulas Termites Tigers Toads Tortoises Toucans Trout Tuna Turkeys Turtles Vipers Voles Vultures
Wallabies Walruses Wasps Weasels Whales Wolves Wombats Woodpeckers Worms Yaks Zebras

Agaves Anemones Asters Azaleas Begonias Bluebells Bougainvilleas Buttercups Cacti Camellias Carnations Chrysanthemums
Clematis Clovers Columbines Cornflowers Cosmos Crocuses Cyclamens Daffodils Dahlias Daisies Dandelions Delphiniums
Edelweiss Ferns Forsythias Foxgloves Freesias Fuchsias Gardenias Gentians Geraniums Gladioli Heather Hellebores
Hibiscus Hollyhocks Honeysuckles Hostas Hyacinths Hydrangeas Irises Ivy Junipers Lavender Lichens Lilacs Lilies
Lobelias Lotuses Lupins Magnolias Marigolds Mimosas Mistletoe Moss Nasturtiums Nettles Oleanders Orchids Pansies
Peonies Petunias Phlox Poppies Primroses Reeds Rhododendrons Roses Snapdragons Snowdrops Sunflowers Thistles Tulips
Verbenas Violets Wisterias Yarrow Zinnias

Almonds Apples Apricots Artichokes Asparagus Avocados Bananas Beetroots Blackberries Blueberries Broccoli Cabbages
Cantaloupes Carrots Cashews Cauliflowers Celery Chard Cherries Chicory Coconuts Courgettes Cranberries Cucumbers
Currants Dates Durians Elderberries Endives Fennel Figs Gooseberries Grapefruits Grapes Guavas Kale Kohlrabi Kumquats
Leeks Lemons Lentils Lettuce Limes Lychees Macadamias Mangoes Melons Mulberries Mushrooms Nectarines Okra Olives
Onions Oranges Papayas Parsnips Peaches Peanuts Pears Peas Pecans Persimmons Pineapples Pistachios Plums Pomegranates
Potatoes Pumpkins Quinces Radishes Raspberries Rhubarb Rutabagas Satsumas Shallots Soybeans Spinach Strawberries
Tangerines Tomatoes Turnips Walnuts Watercress Watermelons Yams

Bagels Baguettes Baklava Biryani Blancmange Bouillabaisse Brioches Brownies Burritos Butterscotch Calzones Cannelloni
Caramels Casseroles Caviar Ceviche Cheesecakes Chocolate Chorizo Chowder Churros Chutney Couscous Crepes Croissants
Croutons Crumpets Cupcakes Curries Custard Doughnuts Dumplings Eclairs Empanadas Enchiladas Fajitas Falafel Flapjacks
Focaccia Fondue Frittatas Fudge Gazpacho Gelato Gnocchi Goulash Granola Guacamole Gumbo Haggis Halva Hamburgers Honey
Hummus Jambalaya Kebabs Kedgeree Ketchup Kimchi Lasagne Licorice Macaroons Marmalade Marshmallows Marzipan Mayonnaise
Meatballs Meringues Minestrone Moussaka Muesli Muffins Mustard Nachos Noodles Nougat Oatmeal Omelettes Paella Pancakes
Pastrami Pavlova Pesto Pickles Pierogi Pizzas Polenta Popcorn Porridge Praline Pretzels Profiteroles Prosciutto
Quesadillas Quiches Ramen Ratatouille Ravioli Risotto Salami Samosas Sandwiches Sauerkraut Schnitzels Scones
Shortbread Sorbet Souffles Stroganoff Strudels Sushi Tacos Tagliatelle Tapas Tempura Tiramisu Toffee Tortillas
Truffles Waffles Yoghurt

Absinthe Allspice Anise Aquavit Basil Bourbon Brandy Cappuccinos Caraway Cardamom Cayenne Champagne Chives Cider
Cinnamon Cloves Cognac Cordial Coriander Cumin Daiquiris Dill Eggnog Espresso Fenugreek Ginger Horseradish Kombucha
Lattes Lemonade Limoncello Margaritas Marjoram Martinis Mead Milkshakes Mint Mojitos Negronis Nutmeg Oregano Paprika
Parsley Port Prosecco Rosemary Saffron Sage Sake Sangria Sherry Smoothies Sumac Tarragon Tequila Thyme Tonic Turmeric
Vanilla Vermouth Vodka Wasabi

Accordions Bagpipes Balalaikas Bandoneons Banjos Bassoons Bongos Bugles Castanets Celestas Cellos Clarinets
Clavichords Congas Cornets Cymbals Didgeridoos Dulcimers Euphoniums Fifes Flugelhorns Flutes Glockenspiels Gongs
Guitars Harmonicas Harmoniums Harps Harpsichords Kazoos Lutes Lyres Mandolins Maracas Marimbas Melodicas Oboes
Ocarinas Organs Pianos Piccolos Recorders Saxophones Shakuhachis Sitars Sousaphones Synthesizers Tablas Tambourines
Theremins Timpani Triangles Trombones Trumpets Tubas Ukuleles Vibraphones Violas Violins Xylophones Zithers

Abseiling Aerobics Archery Badminton Baseball Basketball Bobsleigh Bouldering Bowling Bullfights Bungee Camping
Canoeing Canyoning Caving Cheerleading Climbing Croquet Curling Cycling Darts Decathlon Discus Diving Dodgeball
Dressage Falconry Fencing Football Frisbee Gliding Golf Gymnastics Handball Hiking Hockey Hopscotch Hurdles Hurling
Javelin Judo Karate Kayaking Kitesurfing Kickboxing Lacrosse Luge Marathons Motocross Netball Orienteering Paintball
Parachuting Paragliding Parkour Pentathlon Petanque Pilates Polo Quoits Racquetball Rafting Rallying Relays Rounders
Rowing Rugby Sailing Skateboarding Skating Skiing Skydiving Sledging Snorkelling Snowboarding Softball Squash
Steeplechase Sumo Surfing Swimming Taekwondo Tennis Tobogganing Trampolines Trapeze Triathlon Volleyball Wakeboarding
Weightlifting Windsurfing Wrestling Yoga

Acrostics Anagrams Backgammon Baccarat Bingo Blackjack Bridge Canasta Carrom Charades Chess Cribbage Crosswords
Dominoes Foosball Hangman Jigsaws Kites Lego Lotteries Ludo Mahjong Marbles Mazes Monopoly Nonograms Origami Pachinko
Patience Pinball Poker Puppets Puzzles Quizzes Riddles Roulette Scrabble Shuffleboard Snooker Sudoku Tarot Tiddlywinks
Tombola Trivia Whist Yahtzee Yo-yos

Applique Basketry Batik Beadwork Bookbinding Calligraphy Caricatures Carpentry Carving Ceramics Collages Crochet
Cubism Decoupage Drawing Embroidery Enamel Engraving Etchings Filigree Frescoes Gilding Glassblowing Graffiti
Impressionism Kintsugi Knitting Lacework Lacquer Lithographs Macrame Marquetry Metalwork Miniatures Modelling Mosaics
Murals Needlepoint Oratory Pastels Patchwork Photography Portraits Pottery Printmaking Quilting Scrapbooking
Screenplays Sculpture Sewing Silhouettes Sketching Smithing Spinning Stencils Surrealism Tapestries Tatting Tattoos
Taxidermy Typography Upholstery Watercolours Weaving Whittling Woodcuts

Almanacs Anthologies Arias Ballads Biographies Blogs Cabaret Cantatas Carols Cartoons Chronicles Comedies Concertos
Diaries Documentaries Duets Elegies Encyclopedias Epics Essays Fables Farces Fugues Haiku Horoscopes Hymns Karaoke
Legends Limericks Lullabies Madrigals Magazines Manga Memoirs Mime Myths Nocturnes Novels Odes Operas Oratorios
Overtures Pamphlets Pantomimes Parables Parodies Plays Podcasts Poems Proverbs Psalms Quartets Radio Requiems
Rhapsodies Romances Sagas Satires Serenades Shanties Sitcoms Sonatas Sonnets Soundtracks Symphonies Thrillers
Tragedies Vaudeville Westerns Whodunits

Acoustics Aerodynamics Algebra Alchemy Anatomy Anthropology Archaeology Architecture Arithmetic Astrology Astronomy
Bacteriology Ballistics Biology Botany Calculus Cartography Chemistry Combinatorics Cosmology Criminology Cryptography
Cybernetics Dentistry Dermatology Ecology Economics Electronics Embryology Entomology Epistemology Ergonomics Ethics
Ethnography Etymology Forensics Forestry Genetics Geography Geology Geometry Gerontology Grammar Heraldry Herpetology
Histology History Horticulture Hydrology Hygiene Immunology Kinematics Law Linguistics Logic Logistics Mathematics
Mechanics Metallurgy Metaphysics Meteorology Microbiology Mineralogy Mycology Mythology Neurology Numismatics
Nutrition Oceanography Oncology Optics Ornithology Orthopaedics Paediatrics Palaeontology Parasitology Pedagogy
Petrology Pharmacology Philately Philosophy Phonetics Physics Physiology Politics Probability Psychology Radiology
Rhetoric Seismology Semantics Semiotics Sociology Statistics Surgery Surveying Taxonomy Theology Thermodynamics
Topology Toxicology Trigonometry Virology Volcanology Zoology

Afrikaans Akkadian Albanian Amharic Arabic Aramaic Armenian Assyrians Aztecs Babylonians Basque Bengali Breton
Bulgarian Byzantines Cantonese Catalan Celts Cornish Croatian Czech Danish Druids Dutch Esperanto Estonian Etruscans
Finnish Gaelic Galician Georgian Gladiators Goths Greek Guarani Gujarati Hausa Hawaiian Hebrew Hindi Hittites
Hungarian Huns Icelandic Incas Indonesian Inuit Japanese Khmer Knights Korean Kurdish Lao Latin Latvian Lithuanian
Macedonian Malay Maltese Mandarin Maori Mayans Minoans Mongolian Musketeers Navajo Nepali Normans Norwegian Occitan
Olmecs Pashto Persian Pharaohs Phoenicians Picts Pirates Polish Portuguese Punjabi Quechua Romanian Romans Russian
Samoan Samurai Sanskrit Saxons Scythians Serbian Slovak Slovene Somali Spartans Sumerians Swahili Swedish Tagalog
Tamil Telugu Thai Tibetan Troubadours Turkish Ukrainian Urdu Vandals Vietnamese Vikings Welsh Xhosa Yiddish Yoruba
Zulu

Acropolises Alps Archipelagos Aqueducts Arcades Atolls Avenues Badlands Balconies Bays Bazaars Beaches Bogs Boulevards
Canals Capes Castles Catacombs Cathedrals Caverns Chapels Cliffs Cloisters Coasts Coves Craters Creeks Crypts Dams
Deltas Deserts Dunes Estuaries Fens Fields Fjords Fords Fountains Geysers Glaciers Glades Gorges Grottoes Harbours
Heaths Hedgerows Icebergs Igloos Inlets Islands Isthmuses Jetties Jungles Lagoons Lakes Lighthouses Longhouses Marinas
Marshes Meadows Minarets Moats Monasteries Mosques Moors Oases Obelisks Observatories Orchards Pagodas Palaces Parks
Pavilions Peninsulas Piers Plateaus Playgrounds Plazas Ponds Prairies Promenades Pyramids Quarries Rainforests Rapids
Ravines Reefs Ridges Rivers Ruins Savannas Skyscrapers Spires Springs Stadiums Steppes Straits Swamps Synagogues
Temples Theatres Tombs Towers Tundras Turrets Valleys Viaducts Vineyards Volcanoes Waterfalls Windmills Zoos

Abacuses Airships Ambulances Anchors Balloons Barges Batteries Binoculars Biplanes Bulldozers Buses Cameras Caravans
Carriages Catamarans Chainsaws Chariots Compasses Computers Cranes Derricks Drills Drones Dynamos Elevators Engines
Escalators Excavators Ferries Forklifts Freighters Galleons Gears Generators Gondolas Gramophones Gyroscopes Hammocks
Helicopters Hovercraft Hydrofoils Jets Jukeboxes Kaleidoscopes Keyboards Lathes Levers Limousines Locomotives Looms
Magnets Metronomes Microphones Microscopes Minibuses Monorails Mopeds Motorcycles Oscilloscopes Pendulums Periscopes
Pianolas Ploughs Projectors Pulleys Pumps Radar Rickshaws Robots Rockets Rollers Rudders Satellites Scanners Schooners
Scooters Seaplanes Seesaws Sextants Simulators Sirens Sleighs Snowmobiles Spacecraft Speedboats Steamboats Submarines
Sundials Tandems Tankers Telephones Telescopes Tractors Trains Trams Trawlers Tricycles Tugboats Turbines Turntables
Typewriters Unicycles Vans Wagons Wheelbarrows Yachts Zeppelins

Agate Alabaster Aluminium Amber Amethysts Aquamarine Bakelite Bamboo Basalt Beryl Brass Bronze Burlap Calico Cameos
Cashmere Chalk Chiffon Chintz Clay Cobalt Copper Cork Corduroy Cotton Crystals Damask Denim Diamonds Emeralds Felt
Flannel Flint Garnets Gold Granite Graphite Gypsum Hematite Iron Ivory Jade Jasper Leather Limestone Linen Malachite
Mercury Mica Moonstones Muslin Nickel Nylon Obsidian Onyx Opals Organza Pearls Pewter Platinum Plywood Polyester
Porcelain Pumice Quartz Rattan Rubber Rubies Sandstone Sapphires Satin Seersucker Shale Silk Silver Slate Soapstone
Spandex Suede Taffeta Tin Titanium Topaz Tourmaline Travertine Tulle Turquoise Tweed Uranium Velvet Vinyl Wicker Wool
Zinc Zircons

Anklets Anoraks Aprons Bandanas Berets Bikinis Blazers Bloomers Bonnets Boots Bowties Bracelets Braces Brooches
Buckles Buttons Cardigans Chokers Clogs Cloaks Corsets Cravats Crinolines Cufflinks Culottes Doublets Dungarees
Earrings Espadrilles Fedoras Fezzes Garters Gloves Goggles Hoodies Jackets Jeans Jerseys Jodhpurs Jumpsuits Kaftans
Kilts Kimonos Lanyards Leggings Lockets Loincloths Mantillas Masks Mittens Moccasins Monocles Muffs Necklaces Overalls
Overcoats Parasols Pendants Petticoats Plimsolls Pockets Ponchos Pyjamas Raincoats Ribbons Rings Ruffs Sandals Saris
Sarongs Sashes Scarves Sequins Shawls Shirts Shoes Skirts Slippers Smocks Sombreros Stilettos Stockings Tiaras Togas
Trilbies Turbans Tuxedos Umbrellas Uniforms Veils Waistcoats Wellingtons Wigs Zips

Alcoves Armchairs Ashtrays Barometers Bathtubs Bedspreads Bellows Blankets Bookcases Bookmarks Bottles Brooms
Candelabras Candles Carafes Cauldrons Chandeliers Chimneys Clocks Coasters Colanders Corkscrews Crockery Cushions
Decanters Desks Dishwashers Doorbells Doormats Drawers Dressers Easels Envelopes Erasers Figurines Fireplaces Flasks
Footstools Funnels Goblets Grindstones Hairdryers Hammers Hinges Hourglasses Inkwells Kettles Keyrings Ladders Ladles
Lampshades Lanterns Lecterns Mantelpieces Matchboxes Mirrors Mops Napkins Needles Nutcrackers Ottomans Ovens
Paperweights Parchment Pencils Penknives Pillows Pincers Pitchforks Platters Pliers Postcards Postmarks Quills
Ratchets Refrigerators Rulers Safes Samovars Saucepans Scales Scissors Screwdrivers Shelves Shovels Sideboards Sieves
Spatulas Spoons Stamps Staplers Stools Stoves Tablecloths Tankards Teapots Thermometers Thimbles Toasters Tongs
Toolboxes Toothbrushes Towels Trays Trowels Tweezers Urns Vases Wallpaper Wardrobes Whisks

Asteroids Auroras Avalanches Blizzards Breezes Comets Constellations Cyclones Dawn Dewdrops Drizzle Earthquakes Echoes
Eclipses Embers Equinoxes Evaporation Floods Fog Frost Galaxies Hailstones Haloes Icicles Lightning Meteors Monsoons
Moonlight Nebulae Planets Pulsars Quasars Rainbows Sandstorms Shadows Snowflakes Solstices Squalls Stalactites Stars
Sunsets Supernovae Thunder Tides Tornadoes Tsunamis Twilight Typhoons Waves Whirlpools

Acrobats Admirals Ambassadors Apothecaries Astronauts Auctioneers Bakers Barbers Bards Beekeepers Blacksmiths
Bricklayers Butchers Butlers Captains Chauffeurs Clowns Cobblers Conductors Coopers Couriers Cowboys Curators
Electricians Emperors Farriers Firefighters Fishmongers Florists Glaziers Goldsmiths Governesses Guitarists Hermits
Illusionists Innkeepers Jesters Jockeys Journalists Judges Jugglers Lifeguards Locksmiths Lumberjacks Magicians Mayors
Midwives Millers Minstrels Monks Notaries Novelists Nuns Nurses Opticians Paramedics Pharmacists Pilots Plumbers
Postmen Princesses Professors Publicans Queens Referees Sailors Scribes Senators Sheriffs Shepherds Soldiers Spies
Stuntmen Sultans Tailors Thatchers Tinkers Umpires Undertakers Valets Ventriloquists Veterinarians Waiters Watchmakers
Wizards

Altruism Ambition Anarchism Anniversaries Apologies Aphorisms Autumn Bargains Birthdays Bonfires Bravery Carnivals
Ceremonies Charity Chivalry Circuses Cleanliness Coincidences Compliments Compromises Confetti Consensus Courtesy
Curiosity Daydreams Debates Democracy Dialects Dignity Diplomacy Discipline Discounts Easter Elections Elegance
Eloquence Empathy Enthusiasm Equality Etiquette Euphemisms Fairness Fashion Feasts Festivals Fireworks Foresight
Forgiveness Freedom Frugality Generosity Gratitude Halloween Harmony Hibernation Hobbies Holidays Honesty Humility
Idealism Idioms Imagination Improvisation Independence Ingenuity Innovation Introspection Inventions Irony Jokes
Jubilees Justice Kindness Laughter Leadership Loyalty Manners Masquerades Meditation Mindfulness Minimalism Miracles
Moderation Modesty Naps Neutrality Nostalgia Optimism Palindromes Parades Paradoxes Patriotism Perseverance
Pilgrimages Pragmatism Prudence Punctuality Puns Raffles Reunions Routine Sarcasm Serendipity Silence Simplicity
Sincerity Solitude Spontaneity Stoicism Storytelling Superstitions Symmetry Teamwork Thrift Tolerance Traditions
Tranquillity Trust Utopias Vegetarianism Weddings Whistling Wisdom Yodelling
"""
"""Paragraphs: animals, plants, food, instruments, sports, games, crafts, arts, subjects, peoples, places and so on."""

_KINDS = {
    "Trees": """
        Acacia Alder Ash Aspen Balsa Baobab Beech Birch Cedar Chestnut Cypress Ebony Elm Eucalyptus Fir Ginkgo
        Hawthorn Hazel Hemlock Hickory Hornbeam Jacaranda Larch Laurel Linden Mahogany Mangrove Maple Myrtle Oak
        Pine Poplar Redwood Rowan Sequoia Spruce Sycamore Tamarisk Teak Tupelo Willow Yew
    """,
    "Cheese": """
        Asiago Brie Camembert Cheddar Cottage Edam Emmental Feta Gorgonzola Gouda Gruyere Halloumi Manchego
        Mascarpone Mozzarella Parmesan Pecorino Provolone Ricotta Roquefort Stilton Taleggio
    """,
    "Tea": """
        Assam Bergamot Camomile Ceylon Darjeeling Ginseng Hojicha Jasmine Keemun Lapsang Matcha Oolong Rooibos
        Sencha
    """,
    "Music": """
        Baroque Bluegrass Blues Bossa Calypso Choral Disco Dub Flamenco Folk Funk Gospel Grime Grunge Indie Jazz
        Klezmer Mariachi Motown Punk Ragtime Rap Reggae Ska Soul Swing Techno Trance Zydeco
    """,
    "Dancing": """
        Ballet Ballroom Bhangra Bolero Breakdance Charleston Foxtrot Hula Jive Lindy Line Mambo Merengue Minuet
        Morris Polka Quickstep Rumba Salsa Samba Tango Waltz
    """,
    "Soup": "Barley Borscht Bisque Miso Mulligatawny Oxtail Pho Vichyssoise Wonton",
    "Beans": "Adzuki Borlotti Broad Butter Cannellini Cocoa Haricot Kidney Mung Navy Pinto Runner",
    "Terriers": "Airedale Bedlington Boston Cairn Kerry Norfolk Norwich Skye Staffordshire Yorkshire",
    "Pies": "Gammon Mince Pot Shepherdess",
    "Chairs": "Adirondack Barcelona Bentwood Chesterfield Deck Director Eames Folding Swivel Windsor",
    "Bread": "Ciabatta Cornmeal Naan Oat Pita Pumpernickel Rye Soda Sourdough Spelt",
}
""""Jasmine" of the kind "Tea" makes "Jasmine Tea"."""

_PAIRS = """
Academies=Schools Adhesives=Glue Aerodromes=Airports Aeroplanes=Aircraft Affluence=Wealth Ancestry=Genealogy
Angling=Fishing Apartments=Flats Attics=Lofts Attorneys=Lawyers Aubergines=Eggplants Autobiographies=Self-portrayals
Automobiles=Cars Babies=Infants Bacon=Rashers Bangers=Sausages Banners=Flags Barrels=Casks Baskets=Hampers Beef=Steaks
Beer=Ale Bells=Chimes Bicycles=Pushbikes Biscuits=Cookies Boats=Ships Boxes=Crates Broadsheets=Newspapers
Brooks=Streams Buckets=Pails Bugs=Insects Bunks=Beds Burglars=Thieves Burros=Donkeys Cabs=Taxis Cakes=Gateaux
Candy=Sweets Canvases=Paintings Capsicums=Peppers Carousels=Roundabouts Carpets=Rugs Cash=Money Cats=Felines
Cattle=Cows Celebrations=Parties Cellars=Basements Cemeteries=Graveyards Cereals=Grains Champions=Heroes Charts=Maps
Chefs=Cooks Chickpeas=Garbanzos Children=Youngsters Chips=Fries Cinemas=Movie_theaters Ciphers=Secret_codes
Cities=Metropolises Closets=Cupboards Cocktails=Mixed_drinks Coffee=Java Coins=Small_change Comics=Funnies
Competitions=Contests Confectioners=Chocolatiers Conjurers=Prestidigitators Constables=Policemen
Correspondence=Letters Couches=Sofas Courage=Valour Curtains=Drapes Deities=Gods Demons=Devils Desserts=Puddings
Detectives=Sleuths Dictionaries=Lexicons Dinner=Supper Dinosaurs=Prehistoric_reptiles Dogs=Hounds Dragons=Wyverns
Dramas=Stage_works Draughts=Checkers Dreams=Reveries Drummers=Percussionists Dusk=Nightfall Duvets=Comforters
Dwarfs=Gnomes Dwellings=Houses Eateries=Restaurants Educators=Teachers Elves=Pixies Excursions=Trips Farms=Homesteads
Financiers=Bankers Firearms=Guns Foes=Enemies Forests=Woodlands Fortune=Luck Fragrances=Perfume Friends=Pals
Frocks=Dresses Funerals=Burials Gales=Strong_winds Garbage=Rubbish Gardening=Lawncare Gasoline=Petrol
Gastronomy=Cuisine Gates=Portals Gems=Jewels Ghosts=Phantoms Giants=Ogres Gifts=Presents Glowworms=Fireflies
Gossip=Rumours Grandmothers=Grannies Guests=Visitors Gumboots=Galoshes Handbags=Purses Happiness=Joy Hats=Headgear
Haze=Mist Hazelnuts=Filberts Highways=Motorways Hippos=Hippopotamuses Horses=Steeds Hospitals=Infirmaries
Hotels=Lodging Huts=Sheds Images=Pictures Jails=Prisons Jam=Fruit_preserves Janitors=Caretakers Jogging=Running
Journeys=Voyages Juice=Nectar Jumpers=Sweaters Kelp=Seaweed Kingdoms=Realms Kings=Monarchs Ladybirds=Ladybugs
Lamps=Bedside_lights Lanes=Alleys Lavatories=Toilets Lawns=Turf Lectures=Talks Libraries=Reading_rooms Lies=Falsehoods
Lollipops=Suckers Lorries=Trucks Love=Affection Luggage=Suitcases Lunch=Midday_meals Maize=Sweetcorn
Mariners=Seafarers Medicine=Healing Merchants=Traders Mice=Rodents Milk=Dairy Monkeys=Primates Morality=Virtue
Mountains=Peaks Mugs=Cups Mutton=Lamb Mysteries=Enigmas Nations=Countries Nightwear=Bedclothes Notebooks=Jotters
Nuptials=Marriages Oceans=Seas Parsons=Vicars Pastries=Patisserie Peace=Nonviolence Pens=Biros
Philology=Language_study Physicians=Doctors Pigs=Swine Poetry=Verse Ponies=Little_equines Poultry=Chickens
Prawns=Scampi Priests=Clergymen Promises=Vows Pubs=Taverns Punctures=Burst_tyres Rabbits=Bunnies Rage=Anger
Rain=Precipitation Raisins=Sultanas Rats=Vermin Renown=Fame Rest=Repose Retailers=Shopkeepers Riches=Treasure
Roads=Streets Ropes=Cords Rucksacks=Backpacks Sabres=Swords Sacks=Bags Salaries=Wages Salt=Seasoning
Scientists=Researchers Scoundrels=Villains Serpents=Snakes Shops=Stores Sidewalks=Pavements Singers=Vocalists
Slacks=Trousers Slumber=Sleep Snapshots=Photographs Sneakers=Trainers Snow=White_flakes Sorrow=Sadness Spaghetti=Pasta
Spectacles=Eyeglasses Staircases=Flights_of_steps Stargazing=Skywatching Statues=Monuments Stew=Hotpot Storms=Tempests
Strollers=Pushchairs Strolls=Leisurely_walking Suburbs=Outskirts Sugar=Sucrose Sunrise=Daybreak Sunshades=Awnings
Sunshine=Rays Suspenders=Garterbelts Tales=Stories Taps=Faucets Taxes=Levies Teenagers=Adolescents Televisions=Tellies
Tents=Marquees Textbooks=Coursebooks Thespians=Actors Tights=Pantyhose Torches=Flashlights Toys=Playthings
Treacle=Syrup Troops=Army_units Tunes=Songs Tunnels=Underpasses Twine=String Underwear=Lingerie Universities=Colleges
Vacations=Time_off Vacuums=Hoovers Victory=Triumph Villages=Hamlets Walls=Ramparts Warriors=Fighters
Wars=Armed_conflicts Water=H2O Wharves=Docks Whisky=Scotch Wildebeests=Gnus Windows=Glass_panes Wine=Vino
Witches=Sorceresses Wrenches=Spanners Writers=Authors
"""
"""Attributes with another name for each, "_" for a blank; no name shares a word with any attribute or other name."""

_GIVEN = """
Ba Be Bri Ca Ce Cor Da De El Em Fa Fi Ga Gre Ha Hil Il Ja Jo Ka Kei La Lo Ma Me Na Ni Pe Ri Ro Sa Se Ta Te U Va Vi Wi
Ya Ze
"""
_GIVEN_ENDS = "bel da della dric lan lia lina mara na nette nor ra ric ro ssa tha ven vin"
_FAMILY = """
Ash Bel Black Bram Brant Bur Cal Car Chat Col Crom Dal Den Dray El Ever Fair Far Gar Gos Hal Har Haver Hol Kel Ken
Kings Lang Lin Lock Mal Mar Mel Mid Nor Oak Or Pen Pres Quen Rad Ram Red Roth Sel Shel South Stan Strat Sut Thorn Tin
Tre Ul Wal War Wes Whit Win Wy
"""
_FAMILY_ENDS = """
born bridge brook bury by cott dale field ford gate ham hurst land ley mere more ridge row sby ston stead thorpe ton
vale ville ward well wick worth
"""
"""Names are put together from beginnings and ends, so none is anybody's list."""


@cache
def attributes() -> tuple[str, ...]:
    """Return every attribute once, those with another name first, in the order written."""
    kinds = (f"{word} {kind}" for kind, words in _KINDS.items() for word in words.split())
    return (*synonyms(), *_ALONE.split(), *kinds)


@cache
def synonyms() -> Mapping[str, str]:
    """Return attribute -> its other name, for the attributes that have one."""
    return dict(pair.replace("_", " ").split("=") for pair in _PAIRS.split())


def name(number: int) -> str:
    """Return the number-th name, 0 <= number < NAMES: given name and family name, all different."""
    given, family = divmod(number, len(_family_names()))
    return f"{_given_names()[given]} {_family_names()[family]}"


@cache
def _given_names() -> list[str]:
    return [beginning + end for beginning in _GIVEN.split() for end in _GIVEN_ENDS.split()]


@cache
def _family_names() -> list[str]:
    return [beginning + end for beginning in _FAMILY.split() for end in _FAMILY_ENDS.split()]


NAMES = len(_given_names()) * len(_family_names())
"""How many names there are."""
