-- Gaps in the numbers of what has rows, where that attribute is `n`:
SELECT previous + 1 AS missing_from, n - 1 AS missing_to
FROM (
  SELECT n, LAG(n) OVER (ORDER BY n) AS previous
  FROM (SELECT DISTINCT CAST(JSON_VALUE(attributes, '$.n') AS INT64) AS n FROM `my-project.inference.audit`)
  WHERE n IS NOT NULL
)
WHERE n > previous + 1
ORDER BY missing_from
