"""Names and courses for the seed: ordinary ones, in the scripts that a school's register holds."""

from __future__ import annotations

# Given names, family names, and how the two are put together.
NAMES: list[tuple[list[str], list[str], str]] = [
    (
        ["Emma", "Liam", "Olivia", "Noah", "Amelia", "Oscar"],
        ["Taylor", "Hughes", "Bennett", "O’Connor", "Okafor"],
        "{given} {family}",
    ),
    (
        ["Zoë", "Søren", "Łukasz", "Žofie", "Çağla", "Íris"],
        ["Müller", "Ångström", "Wójcik", "Dvořák", "Yıldız"],
        "{given} {family}",
    ),
    (
        ["Minh Anh", "Thị Hương", "Quốc Bảo", "Ngọc Lan"],
        ["Nguyễn", "Trần", "Phạm", "Đặng"],
        "{family} {given}",
    ),
    (["Анна", "Дмитрий", "Олена", "Тарас"], ["Мороз", "Ткач", "Шевченко", "Коваль"], "{given} {family}"),
    (
        ["Ελένη", "Γιώργος", "Μαρία", "Νίκος"],
        ["Ιωάννου", "Νικολάου", "Γεωργίου", "Δημητρίου"],
        "{given} {family}",
    ),
    (["محمد", "فاطمة", "علي", "زينب"], ["الأحمد", "حسن", "العلي", "منصور"], "{given} {family}"),
    (["דוד", "נועה", "יעל", "איתן"], ["כהן", "לוי", "מזרחי", "פרץ"], "{given} {family}"),
    (["आरव", "नीता", "प्रिया", "रोहन"], ["शर्मा", "वर्मा", "गुप्ता", "पटेल"], "{given} {family}"),
    (["অনিকা", "রাহুল", "মিতা", "সুমন"], ["রায়", "দাস", "সেন", "চৌধুরী"], "{given} {family}"),
    (["கவிதா", "முருகன்", "மீனா", "அருண்"], ["குமார்", "ராஜன்", "செல்வம்", "நாயர்"], "{given} {family}"),
    (["สมชาย", "สุดา", "อนันต์", "มาลี"], ["ใจดี", "ศรีสุข", "ทองคำ", "แสงจันทร์"], "{given} {family}"),
    (["伟", "芳", "娜", "秀英"], ["王", "李", "张", "欧阳"], "{family}{given}"),
    (["さくら", "翔太", "陽菜", "健一"], ["佐藤", "鈴木", "高橋", "田中"], "{family}{given}"),
    (["민준", "서연", "지후", "하은"], ["김", "이", "박", "최"], "{family}{given}"),
    (
        ["María José", "João", "Lucía", "Íñigo"],
        ["García Márquez", "da Silva", "Núñez", "Peña"],
        "{given} {family}",
    ),
]

COURSES: dict[str, list[str]] = {
    "Python for Beginners": [
        "First steps",
        "Values and names",
        "Choices",
        "Loops",
        "Functions",
        "A small project",
    ],
    "Linear Algebra": ["Vectors", "Matrices", "Determinants", "Eigenvalues", "Least squares"],
    "World History since 1800": [
        "Revolutions",
        "Industry",
        "Empires",
        "World wars",
        "After 1945",
        "The present",
    ],
    "Einführung in die Ökologie": ["Lebensräume", "Nahrungsnetze", "Stoffkreisläufe", "Mensch und Umwelt"],
    "العربية للمبتدئين": ["الحروف", "الكلمات", "الجملة", "المحادثة"],
    "中文入门": ["拼音", "汉字", "问候", "数字与时间", "在餐馆"],
    "हिन्दी साहित्य": ["कबीर", "प्रेमचंद", "छायावाद", "आधुनिक कविता"],
    "First Aid": ["Staying safe", "Breathing and pulse", "Bleeding and burns"],
}
