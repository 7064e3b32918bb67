// Arithmatex leaves every formula as \(…\) or \[…\] in an element of its own; KaTeX, served from this site, sets it.
document$.subscribe(({ body }) => {
  for (const element of body.querySelectorAll(".arithmatex")) {
    if (element.querySelector(".katex")) continue
    const source = element.textContent.trim()
    katex.render(source.slice(2, -2), element, { displayMode: source.startsWith("\\["), throwOnError: true })
  }
})
