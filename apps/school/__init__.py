"""A school on Errands: people, courses, enrollments, certificates, webhooks. Systems A and B of the five.

`school.app:app` is the background side, `school.web:api` the web side, `school.seed:seed` makes first data.
`docs/school.md` tells what is where.
"""
