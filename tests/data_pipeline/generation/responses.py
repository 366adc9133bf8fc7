"""One answer of a teacher in the layouts of several model families, written by hand."""

PAIRS = (
    ("Why is the man holding an umbrella?", "It is raining: the street is wet and shines."),
    (
        "What should the cyclist watch out for?",
        "He should brake early.\n\nWet roads are slippery, and:\n- the bus may stop\n"
        "- a door may open",
    ),
)

QUESTION_ANSWER = {
    "as asked": """Question: Why is the man holding an umbrella?
Answer: It is raining: the street is wet and shines.
Question: What should the cyclist watch out for?
Answer: He should brake early.

Wet roads are slippery, and:
- the bus may stop
- a door may open
""",
    "chatty, bold, numbered": """Sure! Here are the questions you asked for:

1. **Question:** Why is the man holding an umbrella?
   **Answer:** It is raining: the street is wet and shines.

2. **Question:** What should the cyclist watch out for?
   **Answer:** He should brake early.

   Wet roads are slippery, and:
   - the bus may stop
   - a door may open

Let me know if you'd like more questions!
""",
    "bold around the whole question": """**1. Question: Why is the man holding an umbrella?**
**Answer:** It is raining: the street is wet and shines.

---

**2. Question: What should the cyclist watch out for?**
**Answer:** He should brake early.

Wet roads are slippery, and:
- the bus may stop
- a door may open

---
""",
    "titles": """### Question 1
Why is the man holding an umbrella?

### Answer 1
It is raining: the street is wet and shines.

### Question 2
What should the cyclist watch out for?

### Answer 2
He should brake early.

Wet roads are slippery, and:
- the bus may stop
- a door may open
""",
    "bold labels on lines of their own": """**Question 1**
Why is the man holding an umbrella?
**Answer**
It is raining: the street is wet and shines.

**Question 2**
What should the cyclist watch out for?
**Answer**
He should brake early.

Wet roads are slippery, and:
- the bus may stop
- a door may open
""",
    "short labels": """Q1: Why is the man holding an umbrella?
A1: It is raining: the street is wet and shines.

(2) Q: What should the cyclist watch out for?
A: He should brake early.

Wet roads are slippery, and:
- the bus may stop
- a door may open
""",
    "on one line": (
        "1) Q: Why is the man holding an umbrella? A: It is raining: the street is wet and shines."
        "\n2) Q: What should the cyclist watch out for? A: He should brake early.\n\n"
        "Wet roads are slippery, and:\n- the bus may stop\n- a door may open\n"
    ),
    "colon after the bold": """- **Question**: Why is the man holding an umbrella?
- **Answer**: It is raining: the street is wet and shines.
- **Question**: What should the cyclist watch out for?
- **Answer**: He should brake early.

Wet roads are slippery, and:
- the bus may stop
- a door may open
""",
    "wide colons": """Question 1\uff1aWhy is the man holding an umbrella?
Answer 1\uff1aIt is raining: the street is wet and shines.
Question 2\uff1aWhat should the cyclist watch out for?
Answer 2\uff1aHe should brake early.

Wet roads are slippery, and:
- the bus may stop
- a door may open
""",
    "with thinking": """<think>
The picture has an umbrella.
Question: should I ask about rain?
</think>

Question: Why is the man holding an umbrella?
Answer: It is raining: the street is wet and shines.

Question: What should the cyclist watch out for?
Answer: He should brake early.

Wet roads are slippery, and:
- the bus may stop
- a door may open""",
    "fenced": """```text
Question: Why is the man holding an umbrella?
Answer: It is raining: the street is wet and shines.
Question: What should the cyclist watch out for?
Answer: He should brake early.

Wet roads are slippery, and:
- the bus may stop
- a door may open
```
I hope these questions help!
""",
    "windows line ends": (
        "Question: Why is the man holding an umbrella?\r\n"
        "Answer: It is raining: the street is wet and shines.\r\n\r\n"
        "Question: What should the cyclist watch out for?\r\n"
        "Answer: He should brake early.\r\n\r\n"
        "Wet roads are slippery, and:\r\n- the bus may stop\r\n- a door may open\r\n"
    ),
}

CONVERSATIONS = (
    ("Is it raining?", "Yes, it is.", "How many people are outside?", "Two people are outside."),
    ("Where is the bus?", "It is behind the cyclist."),
)

CONVERSATION = {
    "as asked": """Topic: The weather
User: Is it raining?
GPT: Yes, it is.
User: How many people are outside?
GPT: Two people are outside.

Topic: The traffic
User: Where is the bus?
GPT: It is behind the cyclist.
""",
    "bold": """**Conversation 1**

**Topic:** The weather

**User:** Is it raining?
**GPT:** Yes, it is.
**User:** How many people are outside?
**GPT:** Two people are outside.

**Conversation 2**

**Topic:** The traffic

**User:** Where is the bus?
**GPT:** It is behind the cyclist.

Would you like me to write more conversations?
""",
    "titles": """## Conversation 1: The weather

**User**: Is it raining?

**Assistant**: Yes, it is.

**User**: How many people are outside?

**Assistant**: Two people are outside.

## Conversation 2: The traffic

**User**: Where is the bus?

**Assistant**: It is behind the cyclist.
""",
    "numbered topics and turns": """1. Topic: The weather
User 1: Is it raining?
GPT 1: Yes, it is.
User 2: How many people are outside?
GPT 2: Two people are outside.
2. Topic: The traffic
User 1: Where is the bus?
GPT 1: It is behind the cyclist.
""",
    "human and AI, rules between": """Topic 1 - The weather
Human: Is it raining?
AI: Yes, it is.
Human: How many people are outside?
AI: Two people are outside.
***
Topic 2 - The traffic
Human: Where is the bus?
AI: It is behind the cyclist.
***
""",
    "number words": """### Conversation One
User: Is it raining?
GPT-4: Yes, it is.
User: How many people are outside?
GPT-4: Two people are outside.
### Conversation Two
User: Where is the bus?
GPT-4: It is behind the cyclist.
""",
}

DESCRIPTION = "A wet street with two people.\n\nA bus waits behind a cyclist; its lights are on."

DETAIL_DESCRIPTION = {
    "as asked": DESCRIPTION,
    "labelled": f"**Description:** {DESCRIPTION}",
    "titled": f"### Detailed description of the image:\n\n{DESCRIPTION}\n",
    "chatty": f"{DESCRIPTION}\n\nLet me know if you need anything else.",
    "greeting": f"Sure! Here's a detailed description of the picture:\n\n{DESCRIPTION}",
    "greeting and label": f"Certainly, here it is:\n**Description**: {DESCRIPTION}",
    "with thinking": f"<think>Two people? Yes.</think>\n{DESCRIPTION}",
    "fenced": f"```\n{DESCRIPTION}\n```",
}
